"""Keeps one worker process alive: compiles what it needs, replaces it when it dies, drains it at the end.

It holds a spare process that has imported everything and loaded the compiled units, so that a worker that dies is
replaced in the time it takes to open the device. Knows nothing of links and settings.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator

from mpserve.dataplane.errors import SetupError
from mpserve.framework import leftovers, log
from mpserve.framework.children import Child, Children, Message
from mpserve.framework.compiling import Progress

QUICK_SECONDS = 2.0  # a worker that dies sooner after it began to serve has failed quickly
QUICK_FAILURES = 3


class Stopped(Exception):
    """Somebody asked the server to stop while it waited for something else."""


class WorkerFailed(SetupError):
    """The worker died again and again."""


class Supervisor:
    """One worker and its spare. `program` is what they run; `over_kernel`: over kernel sockets, without the stack."""

    def __init__(self, program: tuple[str, ...], grace_seconds: float, *, over_kernel: bool = False) -> None:
        self._children = Children(program)
        self._worker_role, self._spare_role = ("kernel", "kernel-spare") if over_kernel else ("worker", "spare")
        self._grace_seconds = grace_seconds
        self._on_ready: Callable[[Child, Message], None] = lambda worker, message: None
        self._closed = False
        self._spare: Child | None = None
        self._stops = 0
        self._log = log.logger("mpserve.server")

    def stop(self) -> None:
        """Have whatever waits raise Stopped; the second time, also stop draining. Safe in signal handlers and threads."""
        self._stops += 1
        if not self._closed:
            self._children.wake()

    def close(self) -> None:
        """Kill and reap whoever is left. Twice is once."""
        if not self._closed:
            self._closed = True
            self._children.close()

    def prepare(self) -> Child:
        """A worker that waits for its order, while the rest is made; the stack is compiled then."""
        worker = self._children.spawn(self._worker_role)
        self._compile(worker)
        return worker

    def _compile(self, worker: Child) -> None:
        """Compile what isn't compiled yet, in a process that can be killed; then have `worker` load it."""
        missing = self._wait_for(worker, "imported")["missing"]
        if missing:
            with Progress(len(missing)) as progress:
                compiler = self._children.spawn("compile")
                for message in self._messages_of(compiler):
                    _raise_refusal(message)
                    if message["event"] == "progress":
                        progress.show(message["name"], message["done"])
                if compiler.process.returncode:
                    raise SetupError(f"compiling the stack failed: {compiler.why_it_died()}")
        worker.send("prepare")

    def keep_serving(self, worker: Child, order: Message, on_ready: Callable[[Child, Message], None]) -> None:
        """Serve, and again when a worker dies, until three in a row have died quickly. Ends by an exception only.

        `on_ready(worker, message)` is called whenever one serves.
        """
        self._on_ready = on_ready
        failures = 0
        died_at: float | None = None
        while True:
            served_seconds, reason = self._life_of(worker, order, died_at)
            died_at = time.monotonic()
            failures = failures + 1 if served_seconds < QUICK_SECONDS else 0
            self._log.error("worker %d died: %s", worker.pid, reason)
            if failures == QUICK_FAILURES:
                raise WorkerFailed(f"the worker died {failures} times in a row, the last time by {reason}")
            if self._worker_role == "worker":
                leftovers.remove_worker_files()
            worker = self._take_spare()

    def _life_of(self, worker: Child, order: Message, died_at: float | None) -> tuple[float, str]:
        """Have a child serve; how many seconds it did, and why it died. What the very first is refused, the user mends."""
        worker.send("start", **order)
        ready_at, refusal = math.inf, ""
        try:
            for message in self._messages_of(worker):
                if message["event"] == "ready":
                    ready_at = time.monotonic()
                    self._greet(worker, message, died_at)
                    self._spare = self._children.spawn(self._spare_role)
                elif message["event"] == "refused":
                    refusal = message["message"]
                    if died_at is None:
                        _raise_refusal(message)
        except Stopped:
            self._drain(worker)
            raise
        return max(0.0, time.monotonic() - ready_at), refusal or worker.why_it_died()

    def _greet(self, worker: Child, message: Message, died_at: float | None) -> None:
        if died_at is not None:
            self._log.warning("worker %d serves again after %.2f s", worker.pid, time.monotonic() - died_at)
        self._on_ready(worker, message)

    def _take_spare(self) -> Child:
        """The spare, or a new one where it has died too or there was none yet."""
        spare, self._spare = self._spare, None
        return spare if spare is not None and spare.alive else self._children.spawn(self._spare_role)

    def _messages_of(self, child: Child) -> Iterator[Message]:
        """What one child says, up to its death. Raises Stopped when asked to stop."""
        while True:
            if self._stops:
                raise Stopped
            heard = self._children.next()
            if heard is None or heard[0] is not child:
                continue
            yield heard[1]
            if heard[1]["event"] == "died":
                return

    def _wait_for(self, child: Child, event: str) -> Message:
        """The message of that name. Raises SetupError if the child refuses, WorkerFailed if it dies first."""
        for message in self._messages_of(child):
            _raise_refusal(message)
            if message["event"] == event:
                return message
        raise WorkerFailed(f"a worker process died: {child.why_it_died()}")

    def _drain(self, worker: Child) -> None:
        """Have the worker stop by itself; kill it after the grace period, or at once when asked to stop again."""
        worker.kill(signal.SIGTERM)
        deadline = time.monotonic() + self._grace_seconds
        while worker.alive and self._stops < 2:
            left = deadline - time.monotonic()
            if left <= 0:
                self._log.warning("worker %d has not stopped in %g s: killed", worker.pid, self._grace_seconds)
                return
            self._children.next(left)


def _raise_refusal(message: Message) -> None:
    if message["event"] == "refused":
        raise SetupError(message["message"])
