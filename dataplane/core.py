"""`make_core`, which lays one core's memory out, and the `Core` that comes of it: Python's side of `layout`."""

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.ip_records import DATAGRAM, DATAGRAM_BYTES, DATAGRAMS, FRAGMENT, FRAGMENTS, ROUTE, ROUTES
from mpserve.dataplane.layout import (
    ARENA_BYTES,
    BLOCK,
    COMMAND_ROWS,
    CONN,
    CONTROL,
    CONTROL_ROWS,
    CORE,
    COUNTERS,
    FLOW_TABLES,
    LISTENER,
    LISTENERS,
    MORE_SENT_RANGES,
    NEIGHBOR,
    NEVER,
    SCRATCH_BYTES,
    SEG,
    SENT,
    SYN,
    TCB,
    TIME_WAIT,
    TIMER,
    TX_ROWS,
    UNRESOLVED_ROWS,
    V4_MAPPED,
    VERSION_LINE,
    WHEEL_BUCKETS,
)
from mpserve.dataplane.limits import BLOCK_BYTES, BURST, DEFAULTS, EVENT_ROWS, Limits
from mpserve.dataplane.memory import allocate, register, unregister

_WORD = np.dtype([("value", "i8")])


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 1).bit_length()


@dataclass(eq=False)
class Core:
    """One core's memory, as Python sees it: the CORE record, and the arrays that its addresses point to."""

    record: Any  # np.record of CORE
    address: int
    arrays: dict[str, Any]  # np.recarray, or np.ndarray where items have no fields
    limits: Limits
    counters: Any = None
    _kept: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Let the memory go: addresses in it are invalid from here on."""
        for array in (*self.arrays.values(), *self._kept):
            unregister(array.ctypes.data)
        self.arrays.clear()

    def check(self) -> None:
        """Raise IndexError if compiled code built with bounds checks met an index outside a table."""
        if self.record.fault:
            fault, self.record.fault = int(self.record.fault), 0
            offsets = {int(offset): name for name, (_, offset, *_) in (CORE.fields or {}).items()}
            raise IndexError(f"{offsets[fault >> 32]}[{np.int32(fault & 0xFFFFFFFF)}] is outside its table")


def ipv4(text: str) -> int:
    """'10.9.0.2' as the number 0x0a090002; SetupError if it is not an IPv4 address."""
    parts = text.split(".")
    if len(parts) != 4 or not all(p.isdigit() and int(p) < 256 for p in parts):
        raise SetupError(f"{text!r} is not an IPv4 address: give one like 10.9.0.2")
    return sum(int(p) << shift for p, shift in zip(parts, (24, 16, 8, 0), strict=True))


def _tables(limits: Limits) -> dict[str, tuple[Any, int]]:
    n, syns, waits = limits.max_connections, limits.syn_backlog, limits.time_wait
    return {
        "tcbs": (TCB, n),
        "conns": (CONN, n),
        "syns": (SYN, syns),
        "cookie_syn": (SYN, 1),
        "time_waits": (TIME_WAIT, waits),
        "listeners": (LISTENER, LISTENERS),
        "neighbors": (NEIGHBOR, _power_of_two(limits.neighbors)),
        "blocks": (BLOCK, limits.blocks),
        "timers": (TIMER, n + syns),
        "wheel": (_WORD, WHEEL_BUCKETS),
        "sents": (SENT, n + MORE_SENT_RANGES),
        "free_sents": (_WORD, n + MORE_SENT_RANGES),
        "routes": (ROUTE, ROUTES),
        "datagrams": (DATAGRAM, DATAGRAMS),
        "datagram_data": (np.uint8, DATAGRAMS * DATAGRAM_BYTES),
        "fragments": (FRAGMENT, DATAGRAMS * FRAGMENTS),
        "controls": (CONTROL, CONTROL_ROWS),
        "flows": (_WORD, _power_of_two(2 * n)),
        "syn_flows": (_WORD, _power_of_two(2 * syns)),
        "wait_flows": (_WORD, _power_of_two(2 * waits)),
        "free_slots": (_WORD, n),
        "released": (_WORD, n),
        "free_blocks": (_WORD, limits.blocks),
        "free_syns": (_WORD, syns),
        "outputs": (_WORD, n),
        "delayed": (_WORD, n),
        "notify": (_WORD, _power_of_two(n)),
        "unresolved": (_WORD, UNRESOLVED_ROWS),
        "seg": (SEG, 1),
        "scratch": (np.uint8, SCRATCH_BYTES),
        "events": (np.int64, 5 * EVENT_ROWS),
        "command_table": (np.int64, 3 * COMMAND_ROWS),
        "arena": (np.uint8, ARENA_BYTES),
        "rx_pkts": (np.int64, BURST),
        "tx_pkts": (_WORD, TX_ROWS),
        "spare_pkts": (np.int64, BURST),
    }


_COUNTS = {
    "syns": "syn_count",
    "cookie_syn": "cookie_syn_count",
    "time_waits": "time_wait_count",
    "listeners": "listener_count",
    "neighbors": "neighbor_count",
    "blocks": "block_count",
    "timers": "timer_count",
    "sents": "sent_count",
    "wheel": "wheel_count",
    "routes": "routes_size",
    "datagrams": "datagram_count",
    "fragments": "fragment_count",
    "controls": "control_rows",
    "flows": "flow_count",
    "syn_flows": "syn_flow_count",
    "wait_flows": "wait_flow_count",
    "notify": "notify_rows",
    "unresolved": "unresolved_rows",
    "tx_pkts": "tx_rows",
    "arena": "arena_bytes",
}


def make_core(
    limits: Limits = DEFAULTS,
    *,
    mac: bytes,
    ip: str,
    prefix_length: int = 24,
    gateway: str | None = None,
    routes: Sequence[tuple[str, int, str]] = (),
    mtu: int = 1500,
    block_data: np.ndarray | None = None,
    counters: np.ndarray | None = None,
    seed: int | None = None,
    tables: dict[str, np.ndarray] | None = None,
) -> Core:
    """Lay out a core that answers for `ip`. `mac` is 6 bytes, `mtu` bytes without the Ethernet header.

    `block_data` (uint8, limits.blocks * 2048) and `counters` (COUNTERS, 1) may be memory from elsewhere: a DPDK memzone,
    a shared segment; so may `tables`, zeroed, for SHARED_TABLES (`switchboard`). `routes` are (network, prefix length, gateway),
    16 at most. `seed` fixes the boot secrets, for tests.
    """
    arrays: dict[str, Any] = {"core": allocate(CORE, 1)}
    core = arrays["core"][0]
    kept: list[Any] = []
    for name, (dtype, count) in _tables(limits).items():
        lines = VERSION_LINE if name in FLOW_TABLES else 0
        whole = _given(tables[name], dtype) if tables and name in tables else allocate(dtype, lines + count)
        arrays[name] = whole[lines:]
        if lines:
            kept.append(whole)
        core[name] = arrays[name].ctypes.data
        if name in _COUNTS:
            core[_COUNTS[name]] = count
    data = allocate(np.uint8, limits.blocks * BLOCK_BYTES) if block_data is None else block_data
    rows = allocate(COUNTERS, 1) if counters is None else counters.view(np.recarray)
    core.block_data, core.counters = register(data), register(rows)
    made = Core(core, arrays["core"].ctypes.data, arrays, limits, rows[0], [*kept, data, rows])
    _fill_free_lists(made)
    _set_identity(core, mac, ip, prefix_length, mtu, seed)
    _set_routes(made, [(ip, prefix_length, None), *routes, *([("0.0.0.0", 0, gateway)] if gateway else [])])
    _set_limits(core, limits)
    return made


def make_buckets(count: int) -> np.ndarray:
    """Buckets of a flow table that is not a core's, for tests and measurements; its version stands before them."""
    return allocate(np.int64, VERSION_LINE + count)[VERSION_LINE:]


def _given(array: np.ndarray, dtype: Any) -> np.ndarray:
    """Memory from elsewhere as a table."""
    table = array.view(np.dtype(dtype)).view(np.recarray)
    register(table)
    return table


def table_bytes(limits: Limits, name: str) -> int:
    """The size of a table, with the line before a flow table's buckets that holds its version."""
    dtype, count = _tables(limits)[name]
    return int(np.dtype(dtype).itemsize) * ((VERSION_LINE if name in FLOW_TABLES else 0) + count)


def _fill_free_lists(core: Core) -> None:
    record, arrays, limits = core.record, core.arrays, core.limits
    record.connections = limits.max_connections
    for name, count in (
        ("free_slots", "free_slot_count"),
        ("free_blocks", "free_block_count"),
        ("free_syns", "free_syn_count"),
        ("free_sents", "free_sent_count"),
    ):
        rows = len(arrays[name])
        arrays[name].value = np.arange(rows - 1, -1, -1)
        record[count] = rows
    arrays["wheel"].value = -1
    arrays["tcbs"].slot = np.arange(limits.max_connections)
    arrays["tcbs"].generation = 1


def _set_identity(core: Any, mac: bytes, ip: str, prefix_length: int, mtu: int, seed: int | None) -> None:
    core.mac = int.from_bytes(mac, "big")
    core.address = V4_MAPPED | ipv4(ip)
    core.prefix_mask = _mask(prefix_length)
    core.mtu = mtu
    core.mss = mtu - 40
    draw = secrets.randbits if seed is None else random.Random(seed).getrandbits
    core.secret_a, core.secret_b = draw(63) | 1, draw(63) | 1
    core.sip_key0, core.sip_key1 = draw(64) - (1 << 63), draw(64) - (1 << 63)
    core.clock_secret_a, core.clock_secret_b = draw(63) | 1, draw(63) | 1


def _mask(prefix_length: int) -> int:
    return (0xFFFFFFFF << (32 - prefix_length)) & 0xFFFFFFFF


def _set_routes(core: Core, routes: Sequence[tuple[str, int, str | None]]) -> None:
    """Fill the table, the longest prefix first: the first that matches is the one to take (RFC 1812 section 5.2.4.3)."""
    if len(routes) > ROUTES:
        raise SetupError(f"{len(routes) - 2} routes are too many: there is room for {ROUTES - 2}")
    core.record.route_count = len(routes)
    longest_first = sorted(routes, key=lambda route: -route[1])
    for row, (network, length, gateway) in zip(core.arrays["routes"], longest_first, strict=False):
        row.mask = _mask(length)
        row.network = V4_MAPPED | (ipv4(network) & _mask(length))
        row.gateway = V4_MAPPED | ipv4(gateway) if gateway else 0


def _set_limits(core: Any, limits: Limits) -> None:
    core.rcvbuf, core.sndbuf = limits.rcvbuf_bytes, limits.sndbuf_bytes
    core.rcvbuf_max = max(limits.rcvbuf_bytes, limits.rcvbuf_max_bytes)
    core.sndbuf_max = max(limits.sndbuf_bytes, limits.sndbuf_max_bytes)
    core.scale = next(s for s in range(15) if core.rcvbuf_max >> s <= 0xFFFF or s == 14)
    core.time_wait_us = int(2e6 * limits.msl_seconds)
    core.fin_wait_us = int(1e6 * limits.fin_wait_seconds)
    core.delack_us, core.rto_min_us, core.rto_max_us = 40_000, 200_000, 60_000_000
    core.retries, core.syn_retries, core.syn_ack_retries = limits.retries, limits.syn_retries, limits.syn_ack_retries
    core.reassemble = int(limits.fragments == "reassemble")
    core.cubic = int(limits.congestion == "cubic")
    core.accept_queue, core.event_batch = limits.accept_queue, limits.event_batch
    core.idle_spin_us = 200
    core.now = 1_000_000
    core.wheel_tick = core.now >> 10
    core.return_at = NEVER
