"""`Agenda`: what a worker has promised to call: timers, functions from other threads, those of kernel descriptors."""

from __future__ import annotations

import concurrent.futures
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mpserve.framework.descriptors import Descriptors
from mpserve.framework.threads import Threads
from mpserve.framework.timers import Timer, Timers, seconds_from_now

if TYPE_CHECKING:
    from mpserve.framework.peers import Alone, Peers

LOOK_SECONDS = 0.0001  # between looks at other descriptors while there is work


class Agenda:
    """The part of a `Worker` that calls functions. Everything is called on the worker's thread."""

    peers: Peers | Alone
    now: float  # seconds on the stack's clock, as of this batch

    def __init__(self) -> None:
        self._timers, self._calls = Timers(), deque[tuple[Callable[..., Any], tuple[Any, ...]]]()
        self._threads = Threads(self.call_soon_threadsafe)
        self._next_timer, self._renew_at = math.inf, -1.0
        self.descriptors, self._look_at = Descriptors(self.renew_schedule), -1.0

    def renew_schedule(self) -> None:
        """`longest_turn` or `wake_at_us` has changed, or there are descriptors to look at."""
        self._renew_at = -1.0

    def _log_error(self, where: str) -> None:
        raise NotImplementedError

    def call_later(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Timer:
        """Call a function on this worker's thread after so many seconds; less than 0 is at once, as 0 is."""
        timer = self._timers.add(self.now + seconds_from_now(seconds), function, arguments)
        self._next_timer = min(self._next_timer, timer.when)
        self._renew_at = -1.0
        return timer

    def call_soon_threadsafe(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a function called on this worker's thread; may be called from any thread."""
        self._calls.append((function, arguments))
        self.peers.wake.set()

    def add_call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Have a function called on this worker's thread, by this thread, behind the callbacks."""
        self._calls.append((function, arguments))

    def add_reader(self, file: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function on this worker's thread while a kernel descriptor (a number, or what has `fileno`) can be read.

        As asyncio's: it is called again and again until something is read, at the end of file too. Replaces the one before.
        """
        self.descriptors.add_reader(file, function, *arguments)

    def remove_reader(self, file: Any) -> bool:
        """Call nothing any more; do it before closing `file`. Whether there was one."""
        return self.descriptors.remove_reader(file)

    def add_writer(self, file: Any, function: Callable[..., Any], *arguments: Any) -> None:
        """The same while a descriptor can be written."""
        self.descriptors.add_writer(file, function, *arguments)

    def remove_writer(self, file: Any) -> bool:
        """Whether there was one."""
        return self.descriptors.remove_writer(file)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
        """Run a function that may block in a thread; the future is completed on this worker's thread."""
        return self._threads.run(function, *arguments)

    @property
    def calls_wait(self) -> bool:
        """Whether calls from threads wait to be made."""
        return bool(self._calls)

    def guarded_call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            function(*arguments)
        except Exception:
            self._log_error(getattr(function, "__qualname__", repr(function)))

    def _look(self) -> None:
        """Call for the descriptors that are ready."""
        self._look_at = self.now + LOOK_SECONDS
        for watch in self.descriptors.ready():
            if not watch.cancelled:
                self.guarded_call(watch.function, watch.arguments)

    def _run_calls(self) -> None:
        for _ in range(len(self._calls)):
            function, arguments = self._calls.popleft()
            self.guarded_call(function, arguments)

    def _run_timers(self) -> None:
        for timer in self._timers.due(self.now):
            self.guarded_call(timer.function, timer.arguments)
        self._next_timer = self._timers.next_at
        self._renew_at = -1.0
