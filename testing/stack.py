"""One core on a virtual wire: frames in, frames and events out, the clock set by hand. What the stack's own tests stand on."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mpserve.dataplane.commands import commands
from mpserve.dataplane.core import Core, ipv4, make_core
from mpserve.dataplane.egress import egress
from mpserve.dataplane.events import OP_BITS, Command, Event
from mpserve.dataplane.faulty_wire import FaultyWire
from mpserve.dataplane.impair_grammar import parse as parse_impairment
from mpserve.dataplane.ingress import ingress
from mpserve.dataplane.layout import COMMAND_ROWS, EVENT_ROWS, NEVER, V4_MAPPED
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.memory import allocate, unregister
from mpserve.dataplane.tcp.timers import timers
from mpserve.dataplane.turn import IDLE, turn
from mpserve.testing.wire import Wire

AUTO_ACCEPT = 1 << 60
MAC = b"\x02\x00\x00\x00\x00\x02"


class StackEvent(NamedTuple):
    """A completion event with its columns named; `data` is the payload of a READ."""

    kind: Event
    slot: int
    handle: int
    a: int
    b: int
    data: bytes = b""


def connect_units(core: Core) -> None:
    """Give a core the addresses of the units that its turn calls."""
    record = core.record
    record.unit_ingress, record.unit_egress = ingress.address, egress.address
    record.unit_commands, record.unit_timers = commands.address, timers.address


def listen(core: Core, port: int, ip: str | None = None, accepts: int = AUTO_ACCEPT) -> int:
    """Add a listener; its number. `accepts` connections complete without being asked for."""
    number = int(np.argmin(core.arrays["listeners"].used))
    listener = core.arrays["listeners"][number]
    listener.port, listener.used, listener.accepts = port, 1, accepts
    listener.address = V4_MAPPED | ipv4(ip) if ip else 0
    return number


class Stack:
    """A core, a wire and a clock in microseconds.

    `impair`, as `--impair` takes it, makes the wire a faulty one, on which up to half of the `mbufs` are on their way.
    """

    def __init__(
        self,
        ip: str = "10.9.0.2",
        port: int = 7,
        *,
        seed: int | None = 1,
        mtu: int = 1500,
        prefix_length: int = 24,
        gateway: str | None = None,
        routes: Sequence[tuple[str, int, str]] = (),
        impair: str = "",
        mac: bytes = MAC,
        mbufs: int = 4096,
        **limits: float | str,
    ) -> None:
        self.ip, self.port = ip, port
        self.wire = Wire(mac, mtu, mbufs)
        self.core = make_core(
            Limits(**limits),  # type: ignore[arg-type]
            mac=self.wire.mac,
            ip=ip,
            prefix_length=prefix_length,
            gateway=gateway,
            routes=routes,
            mtu=mtu,
            seed=seed,
        )
        self.wire.attach(self.core)
        self.faulty_wire: FaultyWire | None = None
        if impair:
            self.faulty_wire = FaultyWire(self.core, parse_impairment(impair), rows=1 << (mbufs.bit_length() - 2))
        connect_units(self.core)
        listen(self.core, port)
        self._arguments = allocate(np.uint8, 1 << 20)
        self._pending = 0
        self._argument_at = 0
        self._idle = False

    @property
    def now(self) -> int:
        return int(self.core.record.now)

    @now.setter
    def now(self, value: int) -> None:
        self.core.record.now = value

    def command(self, op: Command, handle: int, payload: bytes | int = b"") -> None:
        """Put a command in the next batch; an int is a command's argument."""
        data = struct.pack("<q", payload) if isinstance(payload, int) else payload
        if self._pending == COMMAND_ROWS or self._argument_at + len(data) > len(self._arguments):
            raise AssertionError("one test batch holds 4096 commands and 1 MiB")
        table = self.core.arrays["command_table"]
        self._arguments[self._argument_at : self._argument_at + len(data)] = np.frombuffer(data, np.uint8)
        table[self._pending] = handle << OP_BITS | int(op)
        table[COMMAND_ROWS + self._pending] = self._arguments.ctypes.data + self._argument_at
        table[2 * COMMAND_ROWS + self._pending] = len(data)
        self._argument_at += len(data)
        self._pending += 1

    def turn(self) -> list[StackEvent]:
        """One turn at the present time: the commands given, the frames delivered, the deadlines passed; its events."""
        record = self.core.record
        record.idle_spin_us, record.return_at = 0, self.now
        count = int(turn(self.core.address, self._pending))
        self._pending = self._argument_at = 0
        self.core.check()
        if self.faulty_wire is not None:
            self.faulty_wire.check()
        self._idle = count == IDLE
        return self._events(count) if count > 0 else []

    def _events(self, count: int) -> list[StackEvent]:
        columns = self.core.arrays["events"].reshape(5, EVENT_ROWS)[:, :count].tolist()
        arena = self.core.arrays["arena"]
        return [
            StackEvent(Event(k), s, h, a, b, arena[a:b].tobytes() if k == Event.READ else b"")
            for k, s, h, a, b in zip(*columns, strict=True)
        ]

    @property
    def is_at_rest(self) -> bool:
        """Nothing more happens at the present time."""
        return self._idle and not self.core.record.notify_count and not self.wire.waiting

    @property
    def batch_is_full(self) -> bool:
        """The next turn's commands have no room for 64 KiB more."""
        return self._pending == COMMAND_ROWS or self._argument_at + (1 << 16) > len(self._arguments)

    def settle(self) -> list[StackEvent]:
        """Turn until nothing more happens; all events."""
        events: list[StackEvent] = []
        for _ in range(1000):
            events += self.turn()
            if self.is_at_rest:
                return events
        raise AssertionError("the stack does not come to rest")

    def advance(self, microseconds: int) -> list[StackEvent]:
        """Let time pass, in steps of a millisecond at most; all events."""
        events: list[StackEvent] = []
        until = self.now + microseconds
        while self.now < until:
            self.now = min(until, self.now + 1000)
            events += self.settle()
        return events

    def counter(self, name: str) -> int:
        return int(self.core.counters[name])

    @property
    def held(self) -> int:
        """Frames on their way on a faulty wire."""
        return 0 if self.faulty_wire is None else self.faulty_wire.held

    @property
    def next_release(self) -> int:
        """When the next frame that a faulty wire holds arrives; NEVER if there is none."""
        return NEVER if self.faulty_wire is None else self.faulty_wire.next_release_us

    def close(self) -> None:
        if self.faulty_wire is not None:
            self.faulty_wire.close()
        self.wire.close()
        self.core.close()
        unregister(self._arguments.ctypes.data)
