"""The workers of one server: the shared segment in which they find each other's flows and pass each other frames.

`Switchboard` lays it out over memory that every worker maps: a header, a row for each member, a ring from each to each, and the
tables of each that the others look into. Compiled code reaches it by the address of the header, core.switchboard; all places in
it are offsets, for it is mapped at another address in each process.
"""

from __future__ import annotations

import mmap
import random
import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpserve.dataplane.core import Core, table_bytes
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import SHARED_TABLES
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.member_rows import ROW_BYTES, ROWS_AT, STATE_AT
from mpserve.dataplane.memory import record_at, register, unregister
from mpserve.dataplane.sharing import RING_HEADER

MOST_RING_BYTES, LEAST_RING_BYTES, RINGS_BYTES = 1 << 20, 1 << 16, 1 << 22  # one ring's; those into one member
KEY_BYTES, REDIRECTIONS = 40, 128  # of RSS
SHARES = 256  # into which a member's new flows are divided, by their hash
ACCEPTS_BYTES = (
    1 << 20
)  # of the accept queue that all share; before its ring stands its lock, on a pair of lines of its own
LOCK_BYTES = 128
_PAGE = mmap.PAGESIZE
_MADV_REMOVE = 9  # Linux; the module has no name for it
_SECRETS = ("secret_a", "secret_b", "sip_key0", "sip_key1", "clock_secret_a", "clock_secret_b")

SWITCHBOARD = np.dtype(
    [
        (name, "i8")
        for name in (
            "members rings_at ring_bytes tables_at table_stride "
            # whether one member receives for all, so that it spreads new flows; when a SYN cookie was last sent by any
            "one_receives cookie_at "
            # whether the device spreads flows by RSS, whose key and table stand below (`rss`); 1; when the clock of all began
            "rss one tsc_start "
            # where the accept queue is that all share (`shared_accepts`); 0: partitioned listeners
            "accepts_at "
        ).split()
        + [f"{name}_at" for name in SHARED_TABLES]
        + list(_SECRETS)
    ]
    + [("rss_key", "u1", KEY_BYTES), ("rss_table", "u1", REDIRECTIONS)]
)

MEMBER = np.dtype(  # one writer a line: the member's own, others'
    [
        ("state", "i8"),
        ("backlog", "i8"),  # connections that wait to be accepted
        ("redirect_to", "i8"),  # where new flows are sent instead, and ...
        ("redirect_share", "i8"),  # ... how many of SHARES (`rebalance`)
        ("pad_own", "i8", 4),
        ("asleep", "i8"),
        ("wake_fd", "i8"),
        ("pad_others", "i8", 6),
    ]
)
assert SWITCHBOARD.itemsize <= ROWS_AT and MEMBER.itemsize == ROW_BYTES
assert MEMBER.fields["state"][1] == STATE_AT  # type: ignore[index]

switchboard_at, member_record_at = record_at(SWITCHBOARD), record_at(MEMBER)


@compiled
def member_at(core, member):
    return member_record_at(core.switchboard + ROWS_AT + member * ROW_BYTES)


@compiled
def ring_between(core, source, to):
    """The address of the ring from one member to another."""
    board = switchboard_at(core.switchboard)
    return core.switchboard + board.rings_at + (source * board.members + to) * (RING_HEADER + board.ring_bytes)


def ring_bytes(members: int) -> int:
    """The size of each ring: a power of two."""
    share = RINGS_BYTES // max(members - 1, 1)
    return max(LEAST_RING_BYTES, min(MOST_RING_BYTES, 1 << share.bit_length() - 1))


@dataclass(frozen=True)
class Seat:
    """A place at a switchboard: which member a core is."""

    board: Switchboard
    member: int


class Switchboard:
    """The segment, over a writable buffer of `size(members, limits)` bytes, zeroed when `make` lays it out."""

    def __init__(self, buffer: Any, members: int, limits: Limits) -> None:
        self.members, self.limits, self._buffer = members, limits, buffer
        self.memory = np.frombuffer(buffer, np.uint8, size(members, limits))
        self.address = register(self.memory)
        self.header: Any = self.memory[: SWITCHBOARD.itemsize].view(SWITCHBOARD).view(np.recarray)[0]
        rows = self.memory[ROWS_AT : ROWS_AT + members * ROW_BYTES]
        self.rows: Any = rows.view(MEMBER).view(np.recarray)

    @property
    def is_made(self) -> bool:
        """Whether the header is written."""
        return bool(self.header.members)

    def make(
        self, *, one_receives: bool = False, rss_key: bytes = b"", rss_table: bytes = b"", seed: int | None = None
    ) -> Switchboard:
        """Write the header: once, before the first member joins. `rss_key` and `rss_table` are the device's, if it has any."""
        header, at = self.header, _places(self.members, self.limits)
        header.ring_bytes = ring_bytes(self.members)
        header.rings_at, header.tables_at, header.table_stride = at["rings"], at["tables"], at["stride"]
        for name in SHARED_TABLES:
            header[f"{name}_at"] = at[name]
        header.accepts_at = at["accepts"]
        header.one_receives = int(one_receives)
        draw = secrets.randbits if seed is None else random.Random(seed).getrandbits
        for name in _SECRETS:
            header[name] = draw(62) << 1 | 1
        header.one = 1
        if rss_key:
            header.rss = 1
            header.rss_key[:] = np.frombuffer(rss_key, np.uint8)
            header.rss_table[:] = np.frombuffer(rss_table, np.uint8)
        header.members = self.members  # the last word: now it is made
        return self

    def tables(self, member: int) -> dict[str, np.ndarray]:
        """The memory of a member's tables, for `make_core`; zeroed."""
        start = int(self.header.tables_at + member * self.header.table_stride)
        self._clear(start, int(self.header.table_stride))
        found = {}
        for name in SHARED_TABLES:
            at = start + int(self.header[f"{name}_at"])
            found[name] = self.memory[at : at + table_bytes(self.limits, name)]
        return found

    def _clear(self, start: int, length: int) -> None:
        """Zeros, as they were before a member that has died; pages of a map go back to the kernel until they are used again."""
        if isinstance(self._buffer, mmap.mmap):
            self._buffer.madvise(_MADV_REMOVE, start, length)
        else:
            self.memory[start : start + length] = 0

    def join(self, core: Core, member: int) -> None:
        """Make a core, whose tables are `tables(member)`, a member. The others find it once it serves (`set_state`)."""
        record = core.record
        record.switchboard, record.member, record.members = self.address, member, self.members
        for name in _SECRETS:
            record[name] = self.header[name]

    def set_state(self, member: int, state: int) -> None:
        """What others may send a member: SERVING, everything; DRAINING, frames of its flows; ABSENT, nothing.

        A worker says so itself; ABSENT also whoever sees it die.
        """
        self.rows[member].state = state

    def clock_start(self, tsc: int) -> int:
        """The TSC at which the clock of all members began: `tsc` if this is the first to ask."""
        if self.header.tsc_start == 0:
            self.header.tsc_start = tsc
        return int(self.header.tsc_start)

    def close(self) -> None:
        unregister(self.address)


def _places(members: int, limits: Limits) -> dict[str, int]:
    """Where things stand: offsets in the segment; of tables, in a member's part."""
    at: dict[str, int] = {"rings": _round(ROWS_AT + members * ROW_BYTES)}
    end = at["rings"] + members * members * (RING_HEADER + ring_bytes(members))
    at["accepts"] = 0
    if limits.accept == "shared":
        at["accepts"] = _round(end)
        end = at["accepts"] + LOCK_BYTES + RING_HEADER + ACCEPTS_BYTES
    at["tables"] = _round(end)
    place = 0
    for name in SHARED_TABLES:
        at[name] = place
        place = -(-(place + table_bytes(limits, name)) // 64) * 64
    at["stride"] = _round(place)
    return at


def _round(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def size(members: int, limits: Limits) -> int:
    """Bytes of a segment."""
    at = _places(members, limits)
    return at["tables"] + members * at["stride"]
