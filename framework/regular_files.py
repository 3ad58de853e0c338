"""Files in a channel: epoll does not take them, so a few threads read and write them, one command of a file at a time."""

from __future__ import annotations

import concurrent.futures
import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Any

from mpserve.framework.completions import Kind
from mpserve.framework.descriptor import Descriptor
from mpserve.framework.endpoints import CANCELED, CLOSE

if TYPE_CHECKING:
    from mpserve.framework.channel import Channel

THREADS = 4
MOST_READ = 1 << 20  # bytes of one READ: a larger size is no reason to allocate as much


class Threads:
    """The threads of a channel, made when they are first needed."""

    def __init__(self) -> None:
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self.busy: set[RegularFile] = set()  # those that have a command in a thread

    def submit(self, function: Any, *arguments: Any) -> None:
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, thread_name_prefix="mpserve files")
        self._pool.submit(function, *arguments)

    def close(self) -> None:
        """Wait for what has begun, and carry out what waits."""
        for file in list(self.busy):
            file.finish()
        if self._pool is not None:
            self._pool.shutdown(wait=True)


class RegularFile(Descriptor):
    """A file: commands are carried out strictly one behind the other, reads and writes alike."""

    seeks = True
    takes_disconnect = False

    def __init__(self, channel: Channel, thing: Any) -> None:
        super().__init__(channel, thing)
        self._jobs: deque[tuple[int, Any, int | None]] = deque()  # kind, size or data, offset
        self._running: concurrent.futures.Future[tuple[int, bytes]] | None = None
        self._awaited: Kind | None = None  # the completion that the running job still owes

    def read(self, size: int, offset: int | None) -> None:
        self._queue(Kind.READ, min(size, MOST_READ), offset)

    def write(self, data: bytes, offset: int | None) -> None:
        self._queue(Kind.WRITE, data, offset)

    def _queue(self, kind: int, what: Any, offset: int | None) -> None:
        self._jobs.append((kind, what, offset))
        self._next()

    def _next(self) -> None:
        """Begin the next job, unless one runs."""
        while self._jobs and self._running is None:
            kind, what, offset = self._jobs.popleft()
            if kind == CLOSE:
                self.close_descriptor()
            else:
                self._start(Kind(kind), what, offset)

    def _start(self, kind: Kind, what: Any, offset: int | None) -> None:
        future: concurrent.futures.Future[tuple[int, bytes]] = concurrent.futures.Future()
        self._running, self._awaited = future, kind
        self.channel.threads.busy.add(self)
        call_soon = self.channel.worker.call_soon_threadsafe

        def run() -> None:
            future.set_result(_perform(self, kind, what, offset))
            call_soon(self._done, future)

        self.channel.threads.submit(run)

    def _done(self, future: concurrent.futures.Future[tuple[int, bytes]]) -> None:
        """On the worker's thread: a job is over. One that was forgotten has been counted already."""
        if future is not self._running:
            return
        self._stop()
        if self._awaited is not None:
            result, data = future.result()
            self.complete(self._awaited, result, data)
        self._next()

    def end(self) -> None:
        if self._awaited == Kind.READ and self._running is not None:
            self._awaited = None
            self.complete(Kind.READ, CANCELED)
        kept = [job for job in self._jobs if job[0] != Kind.READ]
        for _ in range(len(self._jobs) - len(kept)):
            self.complete(Kind.READ, CANCELED)
        self._jobs = deque(kept)
        self._queue(CLOSE, None, None)

    def forget(self) -> None:
        """The job that runs can't be called back: it is waited for, so that nobody uses the descriptor any more."""
        self._jobs.clear()
        if self._running is not None:
            concurrent.futures.wait([self._running])
            self._stop()

    def finish(self) -> None:
        """Carry out here what waits."""
        while self._running is not None:
            concurrent.futures.wait([self._running])
            self._done(self._running)

    def _stop(self) -> None:
        self._running = None
        self.channel.threads.busy.discard(self)

    def setsockopt(self, level: int, name: int, value: int | bytes | str) -> None:
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))

    def getsockopt(self, level: int, name: int) -> int | bytes:
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))


def _perform(file: RegularFile, kind: Kind, what: Any, offset: int | None) -> tuple[int, bytes]:
    """In a thread: (result, data). A WRITE goes on until all is written; without an offset the file's position moves."""
    try:
        fd = file.check()
        if kind == Kind.READ:
            data = os.read(fd, what) if offset is None else os.pread(fd, what, offset)
            return len(data), data
        rest = memoryview(what)
        while rest:
            done = os.write(fd, rest) if offset is None else os.pwrite(fd, rest, offset + len(what) - len(rest))
            rest = rest[done:]
        return len(what), b""
    except (OSError, ValueError) as error:
        return -(getattr(error, "errno", None) or errno.EBADF), b""
