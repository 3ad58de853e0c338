"""`ChannelHost`: a channel alone on the real stack, on a virtual wire. While `dispatch` waits, virtual time passes."""

from __future__ import annotations

import math
import select
from typing import Any

from mpserve.framework.channel import BATCH, Channel
from mpserve.framework.handler import Handler
from mpserve.testing.host import STEP_SECONDS, Host

TICK_US = 10_000  # at most between looks of the clients at the clock


class ChannelHost(Host):
    """`channel` is under test; the rest is as of `Host`, whose keyword arguments it takes.

    Regular descriptors are of this machine's kernel, so while the channel waits for one, time is real.
    """

    def __init__(self, *, batch: int = BATCH, **settings: Any) -> None:
        super().__init__(Handler(), port=0, **settings)
        self.channel = Channel(self.worker, drives=True, batch=batch)
        self._wire.wait_fds = [-1]  # the poll below tells of frames as a descriptor would: no naps
        self.worker.idle_poll = _VirtualPoll(self, self.worker.idle_poll)  # type: ignore[assignment]

    def stop(self) -> None:
        self.channel.destroy()
        super().stop()

    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass on the wire and at the clients, until a frame arrives at the latest."""
        until = int(self.record.now) + math.ceil(seconds * 1e6)
        self._carry()
        while self.record.now < until and not self._wire.waiting:
            self.record.now = min(until, int(self.record.now) + TICK_US)
            self.tick_clients()
            self._carry()


class _VirtualPoll:
    """In place of the poll object that a worker sleeps on."""

    def __init__(self, host: ChannelHost, real: select.poll) -> None:
        self._host, self._real = host, real
        self.register, self.unregister = real.register, real.unregister

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        channel = self._host.channel
        kernel = channel.poller.waits or channel.threads.busy
        ready = self._real.poll(1 if kernel else 0)
        if not ready:
            self._host.pass_time(min(milliseconds / 1e3, STEP_SECONDS if kernel else 1.0))
        return ready
