"""A Core laid out for a device and wired to it: addresses of its functions, the clock, blocks, the counters' segment.

`Machine` is also what a worker asks about its connections; `KernelMachine` answers the same over kernel sockets.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Any

import cffi
import numpy as np

from mpserve.dataplane.completions import SLOT_BITS, Command
from mpserve.dataplane.core import Core, make_core
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.faulty_wire import FaultyWire
from mpserve.dataplane.impair_grammar import Impairment
from mpserve.dataplane.jit import CHECKS
from mpserve.dataplane.layout import BLOCK_BYTES, COUNTER_NAMES, COUNTERS, NEVER
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.member_rows import ABSENT, DRAINING, SERVING
from mpserve.dataplane.switchboard import Seat
from mpserve.dataplane.tcp.state import CLOSED as STATE_CLOSED
from mpserve.dataplane.turn import doze
from mpserve.framework import socket_options, stack_options
from mpserve.framework.compiled_handler import CompiledHandler
from mpserve.framework.core_channel import CoreChannel
from mpserve.framework.counters import read_segment, row_stride, segment_bytes
from mpserve.framework.handler import Handler
from mpserve.framework.rebalance import Rebalancer
from mpserve.framework.record import Recorder
from mpserve.framework.request_batch import RequestBatch

_FFI = cffi.FFI()
_LIBC = ctypes.CDLL(None)
_WRITE, _SOCKET, _CLOSE = (
    ctypes.cast(function, ctypes.c_void_p).value for function in (_LIBC.write, _LIBC.socket, _LIBC.close)
)


class Machine:
    """One core's memory and the device that it serves. `attach`, where a device has it, wires it in its own way (tests).

    `counters` is the path of a segment, `row` which one of how many rows there is this core's. `impairment` puts a faulty
    wire between the two.
    """

    def __init__(
        self,
        device: Any,
        limits: Limits,
        *,
        ip: str,
        prefix_length: int,
        gateway: str | None,
        routes: Sequence[tuple[str, int, str]] = (),
        counters: str | None = None,
        row: tuple[int, int] = (0, 1),
        impairment: Impairment | None = None,
        record: str | None = None,
        seat: Seat | None = None,
    ) -> None:
        self.device = device
        self._counters_map: mmap.mmap | None = None
        self.core: Core = make_core(
            limits,
            mac=device.mac,
            ip=ip,
            prefix_length=prefix_length,
            gateway=gateway,
            routes=routes,
            mtu=device.mtu,
            block_data=_device_blocks(device, limits),
            counters=self._shared_counters(counters, *row),
            tables=seat.board.tables(seat.member) if seat is not None else None,
        )
        if limits.handles == "fd":
            self.core.record.open_fd, self.core.record.close_fd = _SOCKET, _CLOSE
        self._seat = seat
        if seat is not None:
            seat.board.join(self.core, seat.member)
        if hasattr(device, "attach"):
            device.attach(self.core)
        else:
            attach(self.core, device, seat)
        self.faulty_wire: FaultyWire | None = None
        if impairment is not None:
            few = getattr(device, "few_rx_mbufs", False)
            self.faulty_wire = FaultyWire(self.core, impairment, few_rx_mbufs=few)
        self.channel = CoreChannel(self.core)
        self.counters = self.core.counters
        self._recorder = Recorder(self.core, record) if record else None
        self._record = self.core.record
        tcbs, conns = self.core.arrays["tcbs"], self.core.arrays["conns"]
        self._conns, self._sndbuf_column = conns, conns.sndbuf
        self._queued_column, self._generations = tcbs.snd_queued, tcbs.generation
        self.attend: Callable[[], None] | None = None  # to be called after each turn, if there is anything to do
        if self._recorder is not None or CHECKS:
            self.attend = self._attend

    # -- the loop

    def begin_serving(self) -> None:
        """The handler is ready: other cores may steer frames here."""
        self._tell_others(SERVING)

    def begin_draining(self) -> None:
        """Other cores steer no new flows here any more."""
        self._tell_others(DRAINING)

    def _tell_others(self, state: int) -> None:
        if self._seat is not None:
            self._seat.board.set_state(self._seat.member, state)

    def slept(self) -> None:
        """Awake again, whoever it was that woke us."""
        if self._seat is not None:
            self._seat.board.rows[self._seat.member].asleep = 0

    def may_sleep(self) -> bool:
        """Whether nothing has come from other cores; from then on whoever sends something wakes us."""
        return self._seat is None or doze(self.core.address, 0) != 0

    def make_rebalancer(self) -> Rebalancer:
        """Of a core that has others. Raises SetupError if it has none."""
        if self._seat is None or self._counters_map is None:
            raise SetupError("--rebalance needs several workers: type --cores with more than one core")
        stride, scale = row_stride(COUNTERS.itemsize), int(self._record.tsc_scale)
        rows: list[Any] = [np.frombuffer(self._counters_map, COUNTERS, 1, row * stride)[0] for row in range(self._rows)]
        return Rebalancer(
            self._seat.board,
            self._seat.member,
            busy=lambda member: int(rows[member]["busy_cycles"]) * scale >> 32,
            waiting=self._waiting_share,
            redirect=getattr(self.device, "redirect", None),
        )

    def _waiting_share(self) -> float:
        """How much of an accept queue is taken, of the fullest."""
        return float(self.core.arrays["listeners"].queued.max()) / self.core.limits.accept_queue

    def spin(self, us: float) -> None:
        """How long the channel looks about before it says IDLE; math.inf: for ever."""
        self._record.idle_spin_us = NEVER if us == math.inf else int(us)

    @property
    def hurries(self) -> bool:
        """Whether frames wait that the device has not taken."""
        return bool(self._record.tx_count or self._record.output_count)

    @property
    def holds_output(self) -> bool:
        """Whether something that was written or owed has not left yet."""
        return self.hurries or (self.faulty_wire is not None and bool(self.faulty_wire.held))

    def sleep_until(self, now_us: int) -> int:
        """The next deadline (us), after IDLE."""
        until = int(self._record.sleep_until)
        return until if self.faulty_wire is None else min(until, self.faulty_wire.wake_at(now_us))

    def woken(self) -> None:
        """What woke the worker is about to be seen: spin again."""
        self._record.idle_since = 0

    def _attend(self) -> None:
        if self._recorder is not None:
            self._recorder.drain()
        if CHECKS:
            self.check()

    # -- handlers that compiled code serves

    def install(self, handler: Handler) -> RequestBatch | None:
        """A compiled handler into the loop; what puts a codec before a Python one."""
        if isinstance(handler, CompiledHandler):
            handler.install(self.core)
        elif handler.codec is not None:
            return RequestBatch(self.core, handler.codec)
        return None

    def uninstall(self, handler: Handler) -> None:
        if isinstance(handler, CompiledHandler):
            handler.uninstall(self.core)

    def close_compiled(self) -> None:
        """Close the connections of a compiled handler; no callback follows."""
        self._record.handler = 0
        tcbs = self.core.arrays["tcbs"]
        for slot in np.flatnonzero(tcbs.state != STATE_CLOSED):
            self.channel.command(Command.CLOSE, self.handle_of(int(slot)))

    # -- connections, by slot

    def handle_of(self, slot: int) -> int:
        return int(self._generations[slot]) << SLOT_BITS | slot

    def send_room(self, slot: int, word: int) -> int:
        """Bytes that a connection's send buffer and the pool of blocks have room for, this batch's writes (`word`) counted."""
        channel = self.channel
        pending = sum(len(p) for w, p in zip(channel.words, channel.payloads, strict=True) if w == word)
        room = int(self._sndbuf_column[slot]) - int(self._queued_column[slot]) - pending
        blocks = int(self._record.free_block_count) - sum(map(len, channel.payloads)) // (BLOCK_BYTES // 2)
        return max(min(room, blocks * (BLOCK_BYTES // 2)), 0)

    def queued(self, slot: int) -> int:
        """Bytes that were written and are not acknowledged."""
        return int(self._queued_column[slot])

    def names(self, slot: int) -> tuple[tuple[str, int], tuple[str, int]]:
        """((address, port) of the peer, (address, port) of this side)."""
        conn = self._conns[slot]
        ports = int(conn.ports)
        return (dotted(int(conn.remote)), ports >> 16), (dotted(int(conn.local)), ports & 0xFFFF)

    def listener_of(self, slot: int) -> int:
        """The number of the listener that accepted the connection; another number if none did."""
        return int(self._conns[slot].listener)

    def option_arguments(self, slot: int, level: int, name: int, value: int | bytes | str) -> list[int]:
        """The arguments of the Command.SETs that set an option. Raises OSError (ENOPROTOOPT, EINVAL)."""
        return socket_options.arguments(level, name, value)

    def read_option(self, slot: int, level: int, name: int) -> int | bytes:
        """A socket option of a connection, with the batch's commands executed."""
        self.channel.execute()
        return stack_options.read(self.core, slot, level, name)

    def tcp_info(self, slot: int) -> socket_options.TcpInfo:
        """TCP_INFO of a connection, with the batch's commands executed."""
        self.channel.execute()
        return stack_options.tcp_info(self.core, slot)

    def set_listener_option(self, number: int, level: int, name: int, value: int) -> None:
        """Raises OSError for an option that listeners don't have."""
        stack_options.set_of_listener(self.core.arrays["listeners"][number], level, name, value)

    def stop_listening(self, number: int) -> None:
        """Accept no more; a number whose handshakes are not over yet is not used again before `retire_listeners`."""
        listener = self.core.arrays["listeners"][number]
        listener.port = listener.defer_ms = listener.max_segment = 0
        listener.used = 2 if listener.backlogged else 0  # 2: no longer found, and not yet to be used again

    def retire_listeners(self) -> None:
        """Stopped listeners whose handshakes are over may be used again."""
        listeners = self.core.arrays["listeners"]
        listeners.used[np.logical_and(listeners.used == 2, listeners.backlogged == 0)] = 0

    # -- the rest

    def stats(self) -> dict[str, int]:
        """The core's counters, by name; on a faulty wire also what it did to frames."""
        found = {name: int(self.counters[name]) for name in self.counters.dtype.names}
        return found | (self.faulty_wire.counters if self.faulty_wire is not None else {})

    def all_stats(self) -> list[dict[str, int]]:
        """The counters of every core in the segment, this one's among them; none without a segment."""
        return read_segment(self._counters_map, COUNTER_NAMES, self._rows) if self._counters_map is not None else []

    def _shared_counters(self, path: str | None, row: int, rows: int) -> np.ndarray | None:
        """This core's row of the segment that the supervisor made, as one record of COUNTERS."""
        if path is None:
            return None
        try:
            fd = os.open(path, os.O_RDWR)
        except OSError as error:
            raise SetupError(f"the counters' segment {path} can't be opened: {error.strerror}") from error
        try:
            size = segment_bytes(COUNTERS.itemsize, rows)
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
            self._counters_map, self._rows = mmap.mmap(fd, size), rows
        finally:
            os.close(fd)
        return np.frombuffer(self._counters_map, COUNTERS, 1, row * row_stride(COUNTERS.itemsize))

    def check(self) -> None:
        """Raise IndexError if compiled code built with bounds checks met an index outside a table."""
        self.core.check()
        if self.faulty_wire is not None:
            self.faulty_wire.check()

    def close_recorder(self) -> None:
        """Write what was recorded. Twice is once."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def close(self) -> None:
        self._tell_others(ABSENT)
        self.channel.close()
        if self.faulty_wire is not None:
            self.faulty_wire.close()
        self.core.close()


def dotted(address: int) -> str:
    """The low 32 bits as an IPv4 address."""
    return ".".join(str(address >> shift & 0xFF) for shift in (24, 16, 8, 0))


def _device_blocks(device: Any, limits: Limits) -> np.ndarray | None:
    """Send blocks from the device's own memory (a DPDK memzone), where it has any to give."""
    memory = getattr(device, "blocks", None)
    return None if memory is None else np.frombuffer(memory, np.uint8, limits.blocks * BLOCK_BYTES)


def attach(core: Core, device: Any, seat: Seat | None) -> None:
    """A DPDK port: its burst functions by address, and the TSC for a clock that starts at one second, for all members alike."""
    import pydpdk

    record = core.record
    record.rx, record.tx, record.alloc, record.free = device.rx, device.tx, device.alloc, device.free
    record.port, record.queue, record.pool = device.port_id, device.queue, device.pool
    record.unfinished_checksums = int(device.unfinished_checksums)
    hz = pydpdk.tsc_hz()
    record.read_tsc = pydpdk.symbols.address("pydpdk_rdtsc")
    record.tsc_scale = int(1e6 * 2**32 / hz)
    tsc = _FFI.cast("int64_t(*)(void)", int(record.read_tsc))()
    record.tsc_start = tsc - hz
    if seat is not None:
        record.tsc_start = seat.board.clock_start(tsc - hz)
        record.now = (tsc - int(record.tsc_start)) * 1_000_000 // hz
        record.wheel_tick = record.now >> 10
        record.write = _WRITE  # by which another core is woken
