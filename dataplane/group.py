"""The workers of one server: the shared segment in which they find each other's flows and pass each other frames.

`Group` lays it out over memory that every worker maps: a header, a row for each member, a ring from each to each, and the
tables of each that the others look into. Compiled code reaches it by the address of the header, core.group; all places in
it are offsets, for it is mapped at another address in each process.
"""

from __future__ import annotations

import random
import secrets
from typing import Any

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import SHARED_TABLES, Core, table_bytes
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.memory import record_at, register, unregister
from mpserve.dataplane.sharing import RING_HEADER

MOST_MEMBERS = 64
MOST_RING_BYTES, LEAST_RING_BYTES, RINGS_BYTES = 1 << 20, 1 << 16, 1 << 22  # one ring's; those into one member
KEY_BYTES, REDIRECTIONS = 40, 128  # of RSS
ABSENT, SERVING = 0, 1  # a member's state
_PAGE = 4096
_SECRETS = ("secret_a", "secret_b", "sip_key0", "sip_key1", "clock_secret_a", "clock_secret_b")

GROUP = np.dtype(
    [
        (name, "i8")
        for name in (
            "members rings_at ring_bytes tables_at table_stride "
            # whether one member receives for all, so that it spreads new flows; when a SYN cookie was last sent by any
            "one_receives cookie_at "
            # whether the device spreads flows by RSS, whose key and table stand below (`rss`); 1; when the clock of all began
            "rss one tsc_start "
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
        ("busy", "i8"),  # of 1024, lately
        ("redirect_to", "i8"),  # where new flows are sent instead, and ...
        ("redirect_share", "i8"),  # ... how many of 256 (`rebalance`)
        ("pad_own", "i8", 3),
        ("asleep", "i8"),
        ("wake_fd", "i8"),
        ("pad_others", "i8", 6),
    ]
)
_HEADER_BYTES = -(-GROUP.itemsize // 128) * 128

group_at, member_record_at = record_at(GROUP), record_at(MEMBER)


@compiled
def member_at(core, member):
    return member_record_at(core.group + _HEADER_BYTES + member * MEMBER.itemsize)


@compiled
def ring_between(core, source, to):
    """The address of the ring from one member to another."""
    group = group_at(core.group)
    return core.group + group.rings_at + (source * group.members + to) * (RING_HEADER + group.ring_bytes)


def ring_bytes(members: int) -> int:
    """The size of each ring: a power of two."""
    share = RINGS_BYTES // max(members - 1, 1)
    return max(LEAST_RING_BYTES, min(MOST_RING_BYTES, 1 << share.bit_length() - 1))


class Group:
    """The segment, over a writable buffer of `size(members, limits)` bytes, zeroed when `make` lays it out."""

    def __init__(self, buffer: Any, members: int, limits: Limits) -> None:
        self.members, self.limits = members, limits
        self.memory = np.frombuffer(buffer, np.uint8, size(members, limits))
        self.address = register(self.memory)
        self.header: Any = self.memory[: GROUP.itemsize].view(GROUP).view(np.recarray)[0]
        rows = self.memory[_HEADER_BYTES : _HEADER_BYTES + members * MEMBER.itemsize]
        self.rows: Any = rows.view(MEMBER).view(np.recarray)

    def make(self, *, one_receives: bool = False, seed: int | None = None) -> Group:
        """Write the header: once, by whoever made the memory."""
        header, at = self.header, _places(self.members, self.limits)
        header.members, header.ring_bytes = self.members, ring_bytes(self.members)
        header.rings_at, header.tables_at, header.table_stride = at["rings"], at["tables"], at["stride"]
        for name in SHARED_TABLES:
            header[f"{name}_at"] = at[name]
        header.one_receives = int(one_receives)
        draw = secrets.randbits if seed is None else random.Random(seed).getrandbits
        for name in _SECRETS:
            header[name] = draw(62) << 1 | 1
        header.one = 1
        return self

    def tables(self, member: int) -> dict[str, np.ndarray]:
        """The memory of a member's tables, for `make_core`; zeroed."""
        start = int(self.header.tables_at + member * self.header.table_stride)
        self.memory[start : start + int(self.header.table_stride)] = 0
        found = {}
        for name in SHARED_TABLES:
            at = start + int(self.header[f"{name}_at"])
            found[name] = self.memory[at : at + table_bytes(self.limits, name)]
        return found

    def join(self, core: Core, member: int) -> None:
        """Make a core, whose tables are `tables(member)`, a member. It is found by the others once its row says SERVING."""
        record = core.record
        record.group, record.member, record.members = self.address, member, self.members
        for name in _SECRETS:
            record[name] = self.header[name]

    def close(self) -> None:
        unregister(self.address)


def _places(members: int, limits: Limits) -> dict[str, int]:
    """Where things stand: offsets in the segment; of tables, in a member's part."""
    at: dict[str, int] = {"rings": _round(_HEADER_BYTES + members * MEMBER.itemsize)}
    at["tables"] = _round(at["rings"] + members * members * (RING_HEADER + ring_bytes(members)))
    place = 0
    for name in SHARED_TABLES:
        at[name] = place
        place = -(-(place + table_bytes(limits, name)) // 64) * 64
    at["stride"] = _round(place)
    return at


def _round(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def size(members: int, limits: Limits) -> int:
    """Bytes of a group's segment."""
    at = _places(members, limits)
    return at["tables"] + members * at["stride"]
