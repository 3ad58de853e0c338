"""`make_poll` and `Wake`: epoll and eventfd, or the same over what the system has (kqueue, poll, a pipe) where there are none.

`fileno` is itself pollable: a loop sleeps on it and looks inside afterwards.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import sys
from typing import Any, Protocol

IN, OUT, HANG_UP = 1, 4, 16  # as in poll(2) and epoll(7); HANG_UP is told unasked
_ONE = (1).to_bytes(8, sys.byteorder)  # what an eventfd takes


class Poll(Protocol):
    """What is used of `select.epoll`. `poll` takes seconds and gives (descriptor, mask)."""

    def fileno(self) -> int: ...
    def register(self, fd: int, eventmask: int) -> None: ...
    def modify(self, fd: int, eventmask: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def poll(self, timeout: float, maxevents: int = ...) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


def make_poll() -> Poll:
    poll: Any = select.epoll() if hasattr(select, "epoll") else PortablePoll(selectors.DefaultSelector())
    return poll


class Wake:
    """A descriptor that becomes readable by `set`, from any thread or signal handler: an eventfd, or a pipe without one.

    `inherited`: the `descriptors` of one that another process has made.
    """

    def __init__(self, inherited: tuple[int, int] | None = None) -> None:
        if inherited is not None:
            self._read, self._write = inherited
        elif hasattr(os, "eventfd"):
            self._read = self._write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._read, self._write = os.pipe()
            os.set_blocking(self._read, False)
            os.set_blocking(self._write, False)

    def fileno(self) -> int:
        return self._read

    @property
    def descriptors(self) -> tuple[int, int]:
        """To read and to write; an eventfd is both."""
        return self._read, self._write

    def set(self) -> None:
        with contextlib.suppress(OSError):  # it is set already, or closed
            os.write(self._write, _ONE)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def close(self) -> None:
        for fd in {self._read, self._write}:
            os.close(fd)


class PortablePoll:
    """epoll's methods over a selector. A mask of 0 waits for nothing: a hang-up alone is not told."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector

    def fileno(self) -> int:
        """Raises AttributeError where the selector has no descriptor of its own (plain poll, select)."""
        return self._selector.fileno()  # type: ignore[attr-defined, no-any-return]

    def register(self, fd: int, eventmask: int) -> None:
        if eventmask:
            self._selector.register(fd, _events(eventmask))

    def modify(self, fd: int, eventmask: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        self.register(fd, eventmask)

    def unregister(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(self, timeout: float, maxevents: int = 0) -> list[tuple[int, int]]:
        return [(key.fd, _mask(events)) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        self._selector.close()


def _events(mask: int) -> int:
    return selectors.EVENT_READ * bool(mask & IN) | selectors.EVENT_WRITE * bool(mask & OUT)


def _mask(events: int) -> int:
    return IN * bool(events & selectors.EVENT_READ) | OUT * bool(events & selectors.EVENT_WRITE)
