"""`Generator`: a `Plan` carried out from one core, and what came of it."""

from __future__ import annotations

import os
import time
from typing import Any

from mpserve.apps.load.histogram import Histogram
from mpserve.apps.load.loop import run_load, turn_load
from mpserve.apps.load.plan import KEY_DIGITS, Plan
from mpserve.apps.load.records import CLIENT, COUNTS, GONE, LOAD
from mpserve.dataplane import tsc
from mpserve.dataplane.completions import Command
from mpserve.dataplane.core import ipv4, make_core
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import COMMAND_ROWS, V4_MAPPED
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.memory import allocate, unregister, write_bytes
from mpserve.framework.core_channel import CoreChannel
from mpserve.framework.machine import attach

OPEN_SECONDS = 15.0  # for all connections to be there, or the first replies
STEP_SECONDS = 0.05  # between looks at signals
MOST_OPENING = 64
EVENT_BATCH = 16  # replies a turn: were it all that wait, server and generator would take turns, each idle meanwhile
PERCENTILES = (50, 90, 99, 99.9, 99.99)


class Generator:
    """The clients of one device, which is open already and given back by whoever opened it.

    `ip` is their address. Raises SetupError for a plan that the device or the stack can't carry out.
    """

    def __init__(self, device: Any, plan: Plan, *, ip: str, server: str, port: int, prefix_length: int = 24) -> None:
        self.plan = plan
        self.core = make_core(
            _limits(plan), mac=device.mac, ip=ip, prefix_length=prefix_length, mtu=device.mtu, seed=None
        )
        if hasattr(device, "attach"):
            device.attach(self.core)
        else:
            attach(self.core, device, None)
        self._channel = CoreChannel(self.core)
        connections = self.core.limits.max_connections
        self.histogram = Histogram()
        self._memory = {
            "clients": allocate(CLIENT, connections),
            "idle": allocate("i8", connections),
            "request": allocate("u1", len(plan.request)),
        }
        self._loads = allocate(LOAD, 1)
        self.record: Any = self._loads[0]
        self._lay_out(server, port)

    def _lay_out(self, server: str, port: int) -> None:
        record, plan = self.record, self.plan
        record.core = self.core.address
        for name, array in self._memory.items():
            record[name] = array.ctypes.data
        record.histogram = self.histogram.address
        record.idle_rows = self.core.limits.max_connections
        record.server, record.port = V4_MAPPED | ipv4(server), port
        record.connections, record.most_opening = plan.connections, min(MOST_OPENING, plan.connections)
        record.pipeline, record.transactions = plan.pipeline, plan.transactions
        record.closes_first = int(plan.closes_first)
        write_bytes(int(record.request), plan.request)
        record.request_bytes, record.kind, record.reply_bytes = len(plan.request), plan.kind, plan.reply_bytes
        if plan.has_keys:
            record.key_at, record.key_digits, record.keys = plan.key_at, KEY_DIGITS, plan.keys
        record.random = int.from_bytes(os.urandom(7), "little") | 1
        self.hz = 2**32 * 1_000_000 // int(self.core.record.tsc_scale) if self.core.record.tsc_scale else 1_000_000
        record.ns_scale = (1_000_000_000 << 20) // self.hz
        record.interval = self.hz / plan.rate if plan.rate else 0.0

    # -- what a measurement is

    def open(self) -> None:
        """Until the connections are there, or in one-shot loads the first replies. SetupError if that takes too long."""
        deadline = time.monotonic() + OPEN_SECONDS
        self._begin_schedule()
        while not self._is_open():
            if time.monotonic() > deadline:
                raise SetupError(
                    f"{self.record.opened} of {self.plan.connections} connections in {OPEN_SECONDS:g} s, "
                    f"{self.record.requests} replies: does a server listen there?"
                )
            self.run(STEP_SECONDS)

    def _is_open(self) -> bool:
        if self.plan.transactions:
            return int(self.record.requests) >= 1
        return int(self.record.live) - int(self.record.opening) >= self.plan.connections

    def measure(self, seconds: float, warm_up: float = 0.3) -> dict[str, Any]:
        """What the clients do in so many seconds, after as many of warm-up."""
        self.run(warm_up)
        self.clear()
        self.run(seconds)
        return self.result()

    def clear(self) -> None:
        """Count from here on; an open loop's schedule begins anew."""
        for name in COUNTS:
            self.record[name] = 0
        self.histogram.clear()
        self._retransmits = int(self.core.counters.retransmits)
        self._begin_schedule()

    def _begin_schedule(self) -> None:
        self.record.due_from, self.record.due_count = self.tsc(), 0

    def run(self, seconds: float) -> None:
        """Poll for so long, in steps that let signals through."""
        until = self.tsc() + int(seconds * self.hz)
        while (now := self.tsc()) < until:
            run_load.call(self._loads.ctypes.data, min(until, now + int(STEP_SECONDS * self.hz)))

    def finish(self) -> None:
        """Reset every connection, so that the server has none of them left."""
        self.record.connections = 0
        clients = self._memory["clients"]
        for number, client in enumerate(clients[clients.state != GONE]):
            self._channel.command(Command.ABORT, int(client.handle))
            if number % COMMAND_ROWS == COMMAND_ROWS - 1:
                self._execute()
        self._execute()

    def _execute(self) -> None:
        """The batch's commands, and a few turns for what they send."""
        self._channel.execute()
        for _ in range(4):
            turn_load.call(self._loads.ctypes.data, 0)

    def tsc(self) -> int:
        """The counter that `records` are in."""
        if not self.core.record.read_tsc:
            return int(self.core.record.tsc)
        return tsc.read()

    def result(self) -> dict[str, Any]:
        """Counts since `clear`, with rates, latencies (us) and how busy the generator was."""
        record, plan = self.record, self.plan
        seconds = max(int(record.cycles), 1) / self.hz
        found: dict[str, Any] = {name: int(record[name]) for name in COUNTS} | {"seconds": seconds}
        found["rate"] = found["requests"] / seconds
        found["generator_busy"] = found["busy_cycles"] / max(found["cycles"], 1)
        found["retransmits"] = int(self.core.counters.retransmits) - self._retransmits
        found["unserved"] = max(0, int(seconds * plan.rate) - found["requests"]) if plan.rate else 0
        found |= {f"p{percent:g}_us": self.histogram.percentile(percent) for percent in PERCENTILES}
        found["max_us"] = self.histogram.percentile(100)
        return found | {"tsc_hz": self.hz}

    def close(self) -> None:
        """Give memory back. Connections are left as they are: end them with `finish`."""
        self._channel.close()
        for array in (*self._memory.values(), self._loads, self.histogram.counts):
            unregister(array.ctypes.data)
        self.core.close()


def _limits(plan: Plan) -> Limits:
    """Bounds that the plan does not meet: twice the connections, for those that are ending; TIME_WAIT short, for ports are few."""
    connections = 1 << max(2 * plan.connections - 1, 63).bit_length()
    in_flight = connections * -(-plan.pipeline * len(plan.request) // 2048)
    return Limits(
        max_connections=connections,
        blocks=min(max(4096, 2 * in_flight), 1 << 20),
        time_wait=16_384,
        msl_seconds=0.01,
        event_batch=EVENT_BATCH,
        rcvbuf_bytes=1 << 18,
        sndbuf_bytes=1 << 20,
    )
