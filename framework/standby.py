"""What goes on while a callback runs long: a thread that turns the core meanwhile, and one that says which callback it is."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpserve.framework.core_channel import CoreChannel
    from mpserve.framework.kernel_channel import KernelChannel

_OUR_FRAMES = ("framework/worker.py", "framework/process.py", "framework/timers.py", "threading.py")


class Standby:
    """Beside the thread that makes it, which is the one that turns the core, from `start` to `stop`.

    `slow_seconds`: a callback that has run for so long is logged, once, with its stack; 0: none is.
    """

    def __init__(self, channel: CoreChannel | KernelChannel, log: logging.Logger, slow_seconds: float) -> None:
        self._channel, self._log, self._slow_seconds = channel, log, slow_seconds
        self._core = channel.core
        self._watched = threading.get_ident()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.slow_callbacks = 0

    def start(self) -> None:
        """Without a clock of its own (tests in virtual time) or without compiled code there is no standby."""
        if self._core is not None and not self._prepare_turning():
            return
        if self._slow_seconds > 0:
            self._threads.append(threading.Thread(target=self._watch, name="mpserve-watchdog", daemon=True))
        for thread in self._threads:
            thread.start()

    def _prepare_turning(self) -> bool:
        """The stack is turned by compiled code; the kernel needs nobody."""
        from mpserve.dataplane.jit import JIT
        from mpserve.dataplane.standby import standby

        assert self._core is not None
        if not JIT or not self._core.record.read_tsc:
            return False
        self._core.record.usleep = ctypes.cast(ctypes.CDLL(None).usleep, ctypes.c_void_p).value
        call, address = standby.call, self._core.address
        self._threads = [threading.Thread(target=call, args=(address,), name="mpserve-standby", daemon=True)]
        return True

    def stop(self) -> None:
        """Both threads are over when this returns."""
        if self._core is not None:
            self._core.record.standby_stop = 1
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _watch(self) -> None:
        """Two looks at the same absence, so long apart, are a slow callback."""
        seen = reported = 0
        while not self._over.wait(self._slow_seconds):
            since = self._channel.away_since
            if since and since == seen and since != reported:
                reported = since
                self.slow_callbacks += 1
                self._log.warning("a callback has run for over %g s:\n%s", self._slow_seconds, self._stack())
            seen = since

    def _stack(self) -> str:
        """Where the watched thread is, without the frames that lead to the callback."""
        frame = sys._current_frames().get(self._watched)
        stack = traceback.extract_stack(frame)
        ours = [n for n, entry in enumerate(stack) if entry.filename.endswith(_OUR_FRAMES)]
        return "".join(
            traceback.format_list(stack[ours[-1] + 1 if ours and ours[-1] + 1 < len(stack) else 0 :])
        ).rstrip()
