"""For comparison alone (`--limit accept=shared`): one accept queue for all cores, behind a lock, in place of partitioned listeners.

A SYN goes into it on whichever core it arrives, and any core that looks takes it out and has the connection from then on, so
that its frames have to be steered wherever another core receives them. So does accept() on a listening socket that threads
share: whoever calls first gets the connection, on whichever core its packets arrive (MegaPipe, section 3.3).
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import counters_at
from mpserve.dataplane.member_rows import ABSENT
from mpserve.dataplane.memory import copy, native64
from mpserve.dataplane.sharing import (
    UNLOCKED,
    lock,
    ring_front,
    ring_is_empty,
    ring_publish,
    ring_release,
    ring_reserve,
    take_over,
    unlock,
)
from mpserve.dataplane.switchboard import ACCEPTS_BYTES, LOCK_BYTES, member_at, switchboard_at
from mpserve.dataplane.tcp.backlog import find_listener
from mpserve.dataplane.wire import ethernet, ipv4, tcp

DATAGRAM = 1  # as in the rings between cores


@compiled
def are_shared(core):
    return switchboard_at(core.switchboard).accepts_at != 0


@compiled
def is_queued(core, seg):
    """Whether a segment of no flow was a SYN for a listener, which then waits for whoever takes it."""
    if seg.flags & (tcp.SYN | tcp.ACK | tcp.FIN) != tcp.SYN or find_listener(core, seg.local, seg.ports & 0xFFFF) < 0:
        return False
    length = ipv4.total_length(seg.datagram)
    total = ethernet.HEADER + length
    ring = _hold(core)
    at = ring_reserve(ring, ACCEPTS_BYTES, total)
    if at != 0:
        copy(at, seg.frame, ethernet.HEADER)
        copy(at + ethernet.HEADER, seg.datagram, length)
        ring_publish(ring, ACCEPTS_BYTES, total, DATAGRAM)
    unlock(_lock_of(core))
    if at == 0:
        counters_at(core.counters).drop_accept_full += 1
    return True


@compiled
def take_new(core, frame):
    """The length of the frame of the connection that has waited longest, copied to `frame`; 0 if none waits."""
    if _is_empty(core):  # looked at without the lock: often
        return 0
    ring = _hold(core)
    record = ring_front(ring, ACCEPTS_BYTES)
    length = 0
    if record != 0:
        length = native64(record) >> 8
        copy(frame, record + 8, length)
        ring_release(ring, record)
    unlock(_lock_of(core))
    return length


@compiled
def none_waits(core):
    """Whether no new connection waits, or none could."""
    return not are_shared(core) or _is_empty(core)


@compiled
def _is_empty(core):
    return ring_is_empty(_lock_of(core) + LOCK_BYTES)


@compiled
def _lock_of(core):
    return core.switchboard + switchboard_at(core.switchboard).accepts_at


@compiled
def _hold(core):
    """Take the lock; the ring behind it. A worker killed while it held the lock loses it, and its successor has it."""
    word, own = _lock_of(core), core.member + 1
    while True:
        holder = lock(word, own)
        if holder == UNLOCKED or holder == own:
            return word + LOCK_BYTES
        if 0 < holder <= core.members and member_at(core, holder - 1).state == ABSENT and take_over(word, holder, own):
            return word + LOCK_BYTES
