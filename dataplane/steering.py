"""Steering: a frame that arrives on one core and belongs to another goes there, through the ring between the two.

A core asks nobody about flows that it knows. Only for others it looks into the tables of the other members; and where a SYN
is for a listener that is not here, the members that have it are the global listen table (Fastsocket, section 3.2). What comes
out of a ring stays: no frame is steered twice.
"""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import CONN, LISTENER, SYN, TIME_WAIT, VERSION_LINE, counters_at, listener_record_at
from mpserve.dataplane.member_rows import ABSENT, SERVING
from mpserve.dataplane.memory import address_of, call3, copy, native64
from mpserve.dataplane.shared_accepts import are_shared, is_queued, none_waits
from mpserve.dataplane.sharing import (
    fall_asleep,
    has_to_be_woken,
    ring_front,
    ring_is_empty,
    ring_publish,
    ring_release,
    ring_reserve,
    wake_up,
)
from mpserve.dataplane.switchboard import MEMBER, SHARES, SWITCHBOARD, member_at, ring_between, switchboard_at
from mpserve.dataplane.tcp.backlog import find_listener
from mpserve.dataplane.tcp.table import is_in_shared
from mpserve.dataplane.wire import arp, ethernet, ipv4, tcp

NOBODY = -1
DATAGRAM, ARP = (
    1,
    2,
)  # what a ring's record holds behind the Ethernet header: an IPv4 datagram that is checked, an ARP packet
_ASLEEP = MEMBER.fields["asleep"][1]  # type: ignore[index]
_ONE = SWITCHBOARD.fields["one"][1]  # type: ignore[index]
_VERSION_BYTES = 8 * VERSION_LINE
_CONN_BYTES, _SYN_BYTES, _WAIT_BYTES, _LISTENER_BYTES = (
    CONN.itemsize,
    SYN.itemsize,
    TIME_WAIT.itemsize,
    LISTENER.itemsize,
)


@compiled
def is_steered(core, seg):
    """Whether a segment of a flow that this core doesn't know went to another: the flow's, or one that accepts it."""
    if core.switchboard == 0 or core.steered != 0:
        return False
    to = owner_elsewhere(core, seg)
    if to == NOBODY and seg.flags & tcp.RST == 0:
        if are_shared(core) and is_queued(core, seg):
            return True
        to = _acceptor(core, seg)
        if to == core.member:
            return False
        counters_at(core.counters).steered_new += to != NOBODY
    if to == NOBODY:
        return False
    send_to(core, to, DATAGRAM, seg.frame, seg.datagram, ipv4.total_length(seg.datagram))
    return True


@compiled
def is_error_steered(core, key):
    """Whether an ICMP error about a flow that this core doesn't know went to the member whose it is."""
    if core.switchboard == 0 or core.steered != 0:
        return False
    to = owner_elsewhere(core, key)
    if to == NOBODY:
        return False
    send_to(core, to, DATAGRAM, key.frame, key.datagram, ipv4.total_length(key.datagram))
    return True


@compiled
def owner_elsewhere(core, key):
    """The other member whose flow it is, or NOBODY. One after the other, from the hash's on: where it was put, if it was."""
    member = np.int64(key.hash) % core.members
    for _ in range(core.members):
        if member != core.member and member_at(core, member).state != ABSENT and _has(core, member, key):
            return member
        member = member + 1 if member + 1 < core.members else 0
    return NOBODY


@compiled
def _tables_of(core, member):
    board = switchboard_at(core.switchboard)
    return core.switchboard + board.tables_at + member * board.table_stride


@compiled
def _has(core, member, key):
    """Whether a member has a flow, in the order that flows go through its tables: it may move on meanwhile."""
    board, tables = switchboard_at(core.switchboard), _tables_of(core, member)
    syns, conns, waits = tables + board.syns_at, tables + board.conns_at, tables + board.time_waits_at
    return (
        is_in_shared(
            tables + board.syn_flows_at + _VERSION_BYTES, core.syn_flow_count - 1, key, syns, core.syn_count, _SYN_BYTES
        )
        or is_in_shared(
            tables + board.flows_at + _VERSION_BYTES, core.flow_count - 1, key, conns, core.connections, _CONN_BYTES
        )
        or is_in_shared(
            tables + board.wait_flows_at + _VERSION_BYTES,
            core.wait_flow_count - 1,
            key,
            waits,
            core.time_wait_count,
            _WAIT_BYTES,
        )
    )


@compiled
def _acceptor(core, seg):
    """The member that a new flow is for: this one, another, or NOBODY who listens there."""
    port = seg.ports & 0xFFFF
    here = find_listener(core, seg.local, port) >= 0
    home = core.member
    if not here or switchboard_at(core.switchboard).one_receives != 0:
        home = _spread(core, seg, here, port)
        if home == NOBODY:
            return NOBODY
    row = member_at(core, home)
    to = row.redirect_to
    if (np.int64(seg.hash) >> 20) % SHARES >= row.redirect_share or to < 0 or to >= core.members:
        return home
    return to if _accepts(core, to, here, seg.local, port) else home


@compiled
def _spread(core, seg, here, port):
    """One of the members that accept a new flow, by its hash, or NOBODY; `here`: whether this one does."""
    count = 0
    for member in range(core.members):
        count += _accepts(core, member, here, seg.local, port)
    if count == 0:
        return NOBODY
    chosen = (np.int64(seg.hash) >> 8) % count
    for member in range(core.members):
        if _accepts(core, member, here, seg.local, port):
            if chosen == 0:
                return member
            chosen -= 1
    return NOBODY


@compiled
def _accepts(core, member, here, address, port):
    return here if member == core.member else _listens(core, member, address, port)


@compiled
def _listens(core, member, address, port):
    """Whether a member, up and running, has a listener for an address and port."""
    if member_at(core, member).state != SERVING:
        return False
    rows = _tables_of(core, member) + switchboard_at(core.switchboard).listeners_at
    for i in range(core.listener_count):
        listener = listener_record_at(rows + i * _LISTENER_BYTES)
        if listener.used == 0:
            return False
        if listener.port == port and (listener.address == address or listener.address == 0):
            return True
    return False


@compiled
def send_to(core, to, kind, frame, datagram, length):
    """Put the Ethernet header at `frame` and `length` bytes from `datagram` on into the ring to a member; wake it if it sleeps."""
    counters = counters_at(core.counters)
    room = switchboard_at(core.switchboard).ring_bytes
    ring = ring_between(core, core.member, to)
    total = ethernet.HEADER + length
    at = ring_reserve(ring, room, total)
    if at == 0:
        counters.drop_steer_full += 1
        return
    copy(at, frame, ethernet.HEADER)
    copy(at + ethernet.HEADER, datagram, length)
    ring_publish(ring, room, total, kind)
    counters.steered_out += 1
    receiver = member_at(core, to)
    if has_to_be_woken(address_of(receiver) + _ASLEEP):
        counters.wakes_sent += 1
        call3(core.write, receiver.wake_fd, core.switchboard + _ONE, 8)


@compiled
def share_arp(core, frame):
    """What an ARP reply says is for every member: each asks for itself, and one gets the answers."""
    if core.switchboard == 0 or core.steered != 0 or arp.operation(frame + ethernet.HEADER) != arp.REPLY:
        return
    for member in range(core.members):
        if member != core.member and member_at(core, member).state != ABSENT:
            counters_at(core.counters).steered_arp += 1
            send_to(core, member, ARP, frame, frame + ethernet.HEADER, arp.LENGTH)


@compiled
def oldest_from(core, member):
    """The address of the record that a member sent first and that is not taken yet, or 0."""
    return ring_front(ring_between(core, member, core.member), switchboard_at(core.switchboard).ring_bytes)


@compiled
def take_off(core, member, record):
    ring_release(ring_between(core, member, core.member), record)


@compiled
def record_kind(record):
    return native64(record) & 255


@compiled
def nothing_waits(core):
    for member in range(core.members):
        if member != core.member and not ring_is_empty(ring_between(core, member, core.member)):
            return False
    return none_waits(core)


@compiled
def may_sleep(core):
    """Whether nothing was sent to us; if so, whoever sends from now on wakes us."""
    word = address_of(member_at(core, core.member)) + _ASLEEP
    fall_asleep(word)
    if nothing_waits(core):
        return True
    wake_up(word)
    return False
