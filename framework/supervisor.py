"""Keeps a worker process alive on each core: compiles what they need, replaces whoever dies, drains them at the end.

It holds one spare process that has imported everything and loaded the compiled units, so that the worker that dies first is
replaced in the time it takes to open the device. Knows nothing of links and settings.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mpserve.dataplane.errors import DeviceError, SetupError
from mpserve.framework import leftovers, log
from mpserve.framework.children import Child, Children, Message
from mpserve.framework.compiling import Progress
from mpserve.framework.group import Group

QUICK_SECONDS = 2.0  # a worker that dies sooner after it began to serve has failed quickly
QUICK_FAILURES = 3


class Stopped(Exception):
    """Somebody asked the server to stop while it waited for something else."""


class WorkerFailed(SetupError):
    """A worker died again and again, or a process without which none can serve."""


@dataclass(eq=False)
class Place:
    """A worker's core: the process that is there now, and how it went so far."""

    index: int
    core: int
    child: Child
    ready_at: float | None = None  # since when the process serves
    died_at: float | None = None  # when the one before it died
    failures: int = 0  # quick ones in a row
    refusal: str = ""

    def __str__(self) -> str:
        return f"worker {self.child.pid} on core {self.core}"


class Supervisor:
    """Workers on these cores and their spare. `program` is what they run; `over_kernel`: over kernel sockets, no stack."""

    def __init__(
        self,
        program: tuple[str, ...],
        grace_seconds: float,
        cores: Sequence[int],
        *,
        over_kernel: bool = False,
    ) -> None:
        self._cores = list(cores)
        self.group = Group.create(cores, board=len(self._cores) > 1 and not over_kernel)
        self._children = Children(program, self.group.descriptors)
        self._worker_role, self._spare_role = ("kernel", "kernel-spare") if over_kernel else ("worker", "spare")
        self._grace_seconds = grace_seconds
        self._make_order: Callable[[int], Message] = lambda index: {}
        self._on_ready: Callable[[int, Child, Message], None] = lambda index, child, message: None
        self.on_death: Callable[[int], None] = leftovers.remove_worker_files if not over_kernel else lambda index: None
        self._closed = False
        self._places: list[Place] = []
        self._spare: Child | None = None
        self._stops = 0
        self._log = log.logger("mpserve.server")

    def stop(self) -> None:
        """Have whatever waits raise Stopped; the second time, also stop draining. Safe in signal handlers and threads."""
        self._stops += 1
        if not self._closed:
            self._children.wake()

    def watch(self, descriptor: int, function: Callable[[], None]) -> None:
        """Call the function when the descriptor is readable, while workers serve. If it raises DeviceError they are drained, and
        `keep_serving` raises it."""
        self._children.watch(descriptor, function)

    def close(self) -> None:
        """Kill and reap whoever is left. Twice is once."""
        if not self._closed:
            self._closed = True
            self._children.close()
            self.group.close()

    def prepare(self) -> None:
        """Start a process for each core, to wait for its order while the rest is made; the stack is compiled then."""
        self._places = [
            Place(index, core, self._children.spawn(self._worker_role)) for index, core in enumerate(self._cores)
        ]
        for place in self._places:  # before any of them serves: what one posts in on_start is for all the others
            self.group.begin(place.index, place.child.pid)
        self._compile(self._places[0].child)
        for place in self._places:
            place.child.send("prepare")

    def _compile(self, worker: Child) -> None:
        """Compile what isn't compiled yet, in a process that can be killed."""
        missing = self._wait_for(worker, "imported")["missing"]
        if not missing:
            return
        with Progress(len(missing)) as progress:
            compiler = self._children.spawn("compile")
            for message in self._messages_of(compiler):
                _raise_refusal(message)
                if message["event"] == "progress":
                    progress.show(message["name"], message["done"])
            if compiler.process.returncode:
                raise SetupError(f"compiling the stack failed: {compiler.why_it_died()}")

    def keep_serving(
        self, make_order: Callable[[int], Message], on_ready: Callable[[int, Child, Message], None]
    ) -> None:
        """Serve, and again on a core whose worker dies, until three in a row there have died quickly. Ends by exception only:
        with Stopped, or a DeviceError of `on_death` or of what is watched, the workers have been drained.

        `make_order(index)` is what a worker is told; `on_ready(index, child, message)` is called whenever one serves.
        """
        self._make_order, self._on_ready = make_order, on_ready
        try:
            for place in self._places:
                self._begin(place)
            while True:
                self._take(*self._next())
        except (Stopped, DeviceError):
            self._drain()
            raise

    def _take(self, child: Child | None, message: Message) -> None:
        """See to what somebody has said. What a spare says is of no interest."""
        place = next((place for place in self._places if place.child is child), None)
        if place is None:
            return
        match message["event"]:
            case "ready":
                self._ready(place, message)
            case "refused":
                place.refusal = message["message"]
                if place.died_at is None:  # the very first there: the user mends it
                    _raise_refusal(message)
            case "died":
                self._replace(place)

    def _begin(self, place: Place) -> None:
        """Have the process of a place serve. One that is dead is found out by its `died` message, unless that was heard."""
        if not place.child.alive:
            self._replace(place)
            return
        place.child.send("start", **self._make_order(place.index))

    def _ready(self, place: Place, message: Message) -> None:
        self.group.serves(place.index)
        place.ready_at = time.monotonic()
        if place.died_at is not None:
            self._log.warning("%s serves again after %.2f s", place, place.ready_at - place.died_at)
        self._on_ready(place.index, place.child, message)
        if self._spare is None and all(other.ready_at is not None for other in self._places):
            self._spare = self._children.spawn(self._spare_role)

    def _replace(self, place: Place) -> None:
        """The worker of a place is dead: say why, and have another serve, unless it has been tried often enough."""
        self.group.died(place.index)
        reason = place.refusal or place.child.why_it_died()
        now = time.monotonic()
        quick = place.ready_at is None or now - place.ready_at < QUICK_SECONDS
        place.failures = place.failures + 1 if quick else 0
        self._log.error("%s died: %s", place, reason)
        if place.failures == QUICK_FAILURES:
            raise WorkerFailed(
                f"the worker on core {place.core} died {place.failures} times in a row, the last time by {reason}"
            )
        self.on_death(place.index)
        place.child, place.ready_at, place.died_at, place.refusal = self._take_spare(), None, now, ""
        self.group.begin(place.index, place.child.pid)
        self._begin(place)

    def _take_spare(self) -> Child:
        """The spare, or a new one where it has died too or there is none yet."""
        spare, self._spare = self._spare, None
        if spare is None or not spare.alive:
            return self._children.spawn(self._spare_role)
        spare.hurry()
        return spare

    def _next(self) -> tuple[Child | None, Message]:
        """What somebody says next. Raises Stopped when asked to stop."""
        while True:
            if self._stops:
                raise Stopped
            heard = self._children.next()
            if heard is not None:
                return heard

    def _messages_of(self, child: Child) -> Iterator[Message]:
        """What one child says, up to its death. Raises Stopped when asked to stop."""
        while True:
            sender, message = self._next()
            if sender is child:
                yield message
                if message["event"] == "died":
                    return

    def _wait_for(self, child: Child, event: str) -> Message:
        """The message of that name. Raises SetupError if the child refuses, WorkerFailed if it dies first."""
        for message in self._messages_of(child):
            _raise_refusal(message)
            if message["event"] == event:
                return message
        raise WorkerFailed(f"a worker process died: {child.why_it_died()}")

    def _drain(self) -> None:
        """Have the workers stop by themselves; kill them after the grace period, or at once when asked to stop again."""
        self._children.unwatch()
        for place in self._places:
            if place.child.alive:
                place.child.kill(signal.SIGTERM)
        deadline = time.monotonic() + self._grace_seconds
        while (left := [place for place in self._places if place.child.alive]) and self._stops < 2:
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                for place in left:
                    self._log.warning("%s has not stopped in %g s: killed", place, self._grace_seconds)
                return
            self._children.next(seconds)


def _raise_refusal(message: Message) -> None:
    if message["event"] == "refused":
        raise SetupError(message["message"])
