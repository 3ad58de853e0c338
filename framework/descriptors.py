"""Kernel file descriptors beside our connections: `worker.add_reader` and its kin.

Readiness, as asyncio has it: a function is called again and again while its descriptor is ready. All of them stand in one
epoll, whose own descriptor the worker sleeps on; a busy worker looks into it now and then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from mpserve.framework.polling import HANG_UP, IN, OUT, make_poll

MOST_READY = 256  # descriptors a look


class Watch:
    """What to call for a descriptor. `cancelled` once it was removed or replaced."""

    __slots__ = ("arguments", "cancelled", "function")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments, self.cancelled = function, arguments, False


def descriptor_of(file: Any) -> int:
    """The number behind an int or an object with `fileno`. Raises ValueError for a closed one."""
    fd = file if isinstance(file, int) else file.fileno()
    if fd < 0:
        raise ValueError(f"{file!r} is closed: remove it before closing it")
    return int(fd)


class Descriptors:
    """The descriptors of one worker and what to call for them. Not thread-safe.

    `on_first` is called when there is something to watch again.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._poll = make_poll()
        self._on_first = on_first
        self._readers: dict[int, Watch] = {}
        self._writers: dict[int, Watch] = {}
        self._hang_ups: dict[int, Watch] = {}
        self.watched = 0  # how many there are

    def fileno(self) -> int:
        """Readable while any of them is ready."""
        return self._poll.fileno()

    def add_reader(self, file: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function while `file` can be read, or is at its end. Replaces the one before."""
        self._put(self._readers, file, Watch(function, arguments))

    def add_writer(self, file: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function while `file` can be written, or nobody reads it any more. Replaces the one before."""
        self._put(self._writers, file, Watch(function, arguments))

    def add_hang_up(self, file: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function while `file` is closed at its other end, both ways. Without epoll (macOS) it isn't called."""
        self._put(self._hang_ups, file, Watch(function, arguments))

    def remove_reader(self, file: Any) -> bool:
        """Whether there was one."""
        return self._take(self._readers, file)

    def remove_writer(self, file: Any) -> bool:
        """Whether there was one."""
        return self._take(self._writers, file)

    def remove(self, file: Any) -> None:
        """Everything about a descriptor; call it before closing it."""
        for watches in (self._readers, self._writers, self._hang_ups):
            self._take(watches, file)

    def ready(self) -> list[Watch]:
        """What is to be called now, unless it is cancelled by a call before it."""
        due = []
        for fd, mask in self._poll.poll(0, MOST_READY):
            if mask & ~OUT and fd in self._readers:
                due.append(self._readers[fd])
            if mask & ~IN and fd in self._writers:
                due.append(self._writers[fd])
            if mask & HANG_UP and fd in self._hang_ups:
                due.append(self._hang_ups[fd])
        return due

    def close(self) -> None:
        self._poll.close()

    def _put(self, watches: dict[int, Watch], file: Any, watch: Watch) -> None:
        fd = descriptor_of(file)
        known = self._known(fd)
        before = watches.get(fd)
        watches[fd] = watch
        try:
            (self._poll.modify if known else self._poll.register)(fd, self._mask(fd))
        except BaseException:
            if before is None:
                del watches[fd]
            else:
                watches[fd] = before
            raise
        if before is not None:
            before.cancelled = True
        if not known:
            self.watched += 1
            if self.watched == 1:
                self._on_first()

    def _take(self, watches: dict[int, Watch], file: Any) -> bool:
        fd = descriptor_of(file)
        watch = watches.pop(fd, None)
        if watch is None:
            return False
        watch.cancelled = True
        with contextlib.suppress(OSError):  # closed meanwhile: epoll has forgotten it by itself
            if self._known(fd):
                self._poll.modify(fd, self._mask(fd))
            else:
                self._poll.unregister(fd)
        self.watched -= not self._known(fd)
        return True

    def _known(self, fd: int) -> bool:
        return fd in self._readers or fd in self._writers or fd in self._hang_ups

    def _mask(self, fd: int) -> int:
        return IN * (fd in self._readers) | OUT * (fd in self._writers)
