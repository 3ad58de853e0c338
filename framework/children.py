"""The supervisor's children: started, listened to and reaped in one place. Knows nothing of devices or handlers.

A child is `mpserve.framework.process` in a process group of its own (a Ctrl-C at the terminal reaches the supervisor
alone). What it prints on stderr is passed on and its last lines are kept, to say why it died.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpserve.framework.polling import Wake

Message = dict[str, Any]
KEPT_LINES = 40


@dataclass(eq=False)
class Child:
    """One process; `process.wait` is called by `Children` only."""

    process: subprocess.Popen[bytes]
    control: int
    pidfd: int | None  # None where the system has none (macOS): the end of `control` tells of its death
    tail: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=KEPT_LINES))
    partial: dict[int, bytes] = field(default_factory=dict)
    alive: bool = True

    @property
    def pid(self) -> int:
        return self.process.pid

    def send(self, event: str, **fields: Any) -> None:
        """Give it an order. One that has died meanwhile is found out by its `died` message."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"event": event, **fields}).encode() + b"\n")
            self.process.stdin.flush()

    def kill(self, number: signal.Signals) -> None:
        """Signal its whole group: what it started goes too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def hurry(self) -> None:
        """Take it out of the background, where it gets ready while nobody needs it: others may leave it no time there."""
        if hasattr(os, "sched_setscheduler"):
            with contextlib.suppress(OSError):  # it is dead, or never was there for want of CAP_SYS_NICE
                os.sched_setscheduler(self.pid, os.SCHED_OTHER, os.sched_param(0))

    def why_it_died(self) -> str:
        """`SIGKILL`, or `exit status 1: ` and the last line it printed."""
        code = self.process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        said = [line for line in self.tail if line.strip()]
        return f"{how}: {said[-1].strip()}" if said and code > 0 else how


class Children:
    """Every child of one supervisor and what they say, one message at a time."""

    def __init__(self, program: tuple[str, ...], inherited: Sequence[int] = ()) -> None:
        """`inherited`: descriptors that every child gets."""
        self._program, self._inherited = program, tuple(inherited)
        self._selector = selectors.DefaultSelector()
        self._messages: collections.deque[tuple[Child | None, Message]] = collections.deque()
        self._children: list[Child] = []
        self._wake = Wake()
        self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
        self._watched: list[int] = []

    def wake(self) -> None:
        """Make `next` return a `wake` message. Safe in signal handlers and threads."""
        self._wake.set()

    def watch(self, descriptor: int, function: Callable[[], None]) -> None:
        """Have `next` call the function when the descriptor is readable, and raise what it raises."""
        self._selector.register(descriptor, selectors.EVENT_READ, function)
        self._watched.append(descriptor)

    def unwatch(self) -> None:
        """Look at none of the descriptors given to `watch` any more."""
        while self._watched:
            self._selector.unregister(self._watched.pop())

    def spawn(self, role: str) -> Child:
        read, write = os.pipe()
        # -P: a random.py in the current folder shall not replace the standard library's.
        command = [sys.executable, "-P", *self._program, str(write), str(os.getpid()), role]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(write, *self._inherited),
            process_group=0,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        os.close(write)
        child = Child(process, read, os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else None)
        for descriptor in filter(None, (child.control, self._stderr(child), child.pidfd)):
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, child)
        self._children.append(child)
        return child

    @staticmethod
    def _stderr(child: Child) -> int:
        assert child.process.stderr is not None
        return child.process.stderr.fileno()

    def next(self, timeout: float | None = None) -> tuple[Child | None, Message] | None:
        """The next message and its sender, (None, wake) after `wake`, None after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._messages:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self._selector.select(left)
            if not ready and left is not None:
                return None
            # Pipes before pidfds: what a child said last is heard before its death.
            for key, _ in sorted(ready, key=lambda pair: _is_pidfd(pair[0])):
                if isinstance(key.data, Child):
                    self._hear(key.fd, key.data)
                else:
                    key.data()
        return self._messages.popleft()

    def _woken(self) -> None:
        self._wake.clear()
        self._messages.append((None, {"event": "wake"}))

    def _hear(self, descriptor: int, child: Child) -> None:
        if descriptor == child.pidfd:
            self._reap(child)
        elif child.alive and not self._read(child, descriptor) and child.pidfd is None and descriptor == child.control:
            self._reap(child)

    def _read(self, child: Child, descriptor: int) -> bool:
        """Take in what a pipe holds; False if that was nothing."""
        try:
            data = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(descriptor)
        *lines, child.partial[descriptor] = (child.partial.get(descriptor, b"") + data).split(b"\n")
        for line in lines:
            self._take(child, descriptor, line)
        return bool(data)

    def _take(self, child: Child, descriptor: int, line: bytes) -> None:
        if descriptor == child.control:
            self._messages.append((child, json.loads(line)))
            return
        text = line.decode(errors="replace")
        child.tail.append(text)
        print(text, file=sys.stderr, flush=True)

    def _reap(self, child: Child) -> None:
        for descriptor in (child.control, self._stderr(child)):
            self._drain(child, descriptor)
        child.alive = False
        child.process.wait()
        os.close(child.control)
        if child.pidfd is not None:
            self._selector.unregister(child.pidfd)
            os.close(child.pidfd)
        for pipe in (child.process.stdin, child.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                assert pipe is not None
                pipe.close()
        self._children.remove(child)
        self._messages.append((child, {"event": "died"}))

    def _drain(self, child: Child, descriptor: int) -> None:
        """What a dead child's pipe still holds. Bounded: a process that it started may keep the pipe open and write."""
        for _ in range(64):
            if descriptor not in self._selector.get_map() or not self._read(child, descriptor):
                break
        rest = child.partial.pop(descriptor, b"")
        if rest and descriptor != child.control:  # half a message is none
            self._take(child, descriptor, rest)
        if descriptor in self._selector.get_map():
            self._selector.unregister(descriptor)

    def close(self) -> None:
        """Kill and reap whoever is left."""
        self.unwatch()
        for child in list(self._children):
            child.kill(signal.SIGKILL)
        while self._children:
            self.next()
            self._messages.clear()
        self._selector.close()
        self._wake.close()


def _is_pidfd(key: selectors.SelectorKey) -> bool:
    return isinstance(key.data, Child) and key.fd == key.data.pidfd
