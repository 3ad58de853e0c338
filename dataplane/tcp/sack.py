"""Selective acknowledgment: the blocks that our ACKs report (RFC 2018), and the scoreboard of what the peer reports (RFC 6675).

A scoreboard is a list of disjoint ranges sorted by sequence number, all of them between snd_una and snd_max. It is empty
unless segments are missing, so a connection without loss pays nothing.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import (
    NO_BLOCK,
    block_at,
    counters_at,
    free_sacked_get,
    free_sacked_put,
    sacked_at,
)
from mpserve.dataplane.memory import load32
from mpserve.dataplane.tcp.seq import add, after, before, diff
from mpserve.dataplane.wire import tcp

NONE = -1
MOST_RANGES = 256  # of one scoreboard
DUPLICATE_THRESHOLD = 3

# -- what we report


@compiled
def _end_of_run(core, index):
    """(the last kept block of the run that begins with a block, where the run ends)."""
    block = block_at(core, index)
    end = add(block.seq, block.end)
    while block.next != NO_BLOCK and not after(block_at(core, block.next).seq, end):
        index = block.next
        block = block_at(core, index)
        if after(add(block.seq, block.end), end):
            end = add(block.seq, block.end)
    return index, end


@compiled
def write_sack_option(core, conn, at, room):
    """A SACK option of the out-of-order data, two NOPs before it, in `room` bytes at most. (length, partial sum).

    The first block holds the segment that came last (RFC 2018 section 4); the others follow from the lowest on.
    """
    most = (room - 4) // 8
    if conn.ooo_head == NO_BLOCK or most < 1:
        return 0, 0
    count, total = 0, 0
    newest = NO_BLOCK
    index = conn.ooo_head
    while index != NO_BLOCK:
        last, end = _end_of_run(core, index)
        start = block_at(core, index).seq
        if not before(conn.ooo_newest, start) and before(conn.ooo_newest, end):
            newest = index
            total += tcp.write_sack_block(at + 4, start, end)
            count = 1
            break
        index = block_at(core, last).next
    index = conn.ooo_head
    while index != NO_BLOCK and count < most:
        last, end = _end_of_run(core, index)
        if index != newest:
            total += tcp.write_sack_block(at + 4 + 8 * count, block_at(core, index).seq, end)
            count += 1
        index = block_at(core, last).next
    counters_at(core.counters).sacks_sent += 1
    return 4 + 8 * count, total + tcp.put_word(at, tcp.NOPS_SACK | (2 + 8 * count))


# -- what the peer reports


@compiled
def clear_scoreboard(core, conn):
    while conn.sack_head != NONE:
        _unlink(core, conn, NONE, conn.sack_head)


@compiled
def _unlink(core, conn, previous, index):
    following = sacked_at(core, index).next
    if previous == NONE:
        conn.sack_head = following
    else:
        sacked_at(core, previous).next = following
    free_sacked_put(core, core.free_sack_count, index)
    core.free_sack_count += 1
    conn.sack_count -= 1
    return following


@compiled
def forget_below(core, conn, snd_una):
    """What is acknowledged needs no entry."""
    while conn.sack_head != NONE:
        first = sacked_at(core, conn.sack_head)
        if after(first.end, snd_una):
            if before(first.start, snd_una):
                first.start = snd_una
            return
        _unlink(core, conn, NONE, conn.sack_head)


@compiled
def take_sacks(core, tcb, conn, seg):
    """Enter the segment's SACK blocks in the scoreboard; whether it learned anything.

    A block outside (snd_una, snd_max] says nothing usable (a D-SACK, RFC 2883, or a lie) and is counted.
    """
    learned = False
    for i in range(seg.sack_count):
        start, end = load32(seg.sacks + 8 * i), load32(seg.sacks + 8 * i + 4)
        if not before(start, end) or before(start, tcb.snd_una) or after(end, tcb.snd_max):
            counters_at(core.counters).sacks_refused += 1
        elif _insert(core, conn, start, end):
            learned = True
    if learned:
        counters_at(core.counters).sacks_received += 1
    return learned


@compiled
def _insert(core, conn, start, end):
    """Add a range, joined with those that it touches; False if it was known, or there is no room for another."""
    previous, index = NONE, conn.sack_head
    while index != NONE and before(sacked_at(core, index).end, start):
        previous = index
        index = sacked_at(core, index).next
    if index == NONE or before(end, sacked_at(core, index).start):
        return _insert_new(core, conn, previous, index, start, end)
    entry = sacked_at(core, index)
    if not before(start, entry.start) and not after(end, entry.end):
        return False
    if before(start, entry.start):
        entry.start = start
    if after(end, entry.end):
        entry.end = end
    following = entry.next
    while following != NONE and not after(sacked_at(core, following).start, entry.end):
        if after(sacked_at(core, following).end, entry.end):
            entry.end = sacked_at(core, following).end
        following = _unlink(core, conn, index, following)
    return True


@compiled
def _insert_new(core, conn, previous, following, start, end):
    if core.free_sack_count == 0 or conn.sack_count >= MOST_RANGES:
        counters_at(core.counters).sacks_refused += 1
        return False
    core.free_sack_count -= 1
    index = free_sacked_get(core, core.free_sack_count)
    entry = sacked_at(core, index)
    entry.start = start
    entry.end = end
    entry.next = following
    if previous == NONE:
        conn.sack_head = index
    else:
        sacked_at(core, previous).next = index
    conn.sack_count += 1
    return True


@compiled
def sacked_bytes(core, conn):
    total = 0
    index = conn.sack_head
    while index != NONE:
        entry = sacked_at(core, index)
        total += diff(entry.end, entry.start)
        index = entry.next
    return total


@compiled
def sacked_below(core, conn, seq):
    """Reported bytes before a sequence number."""
    total = 0
    index = conn.sack_head
    while index != NONE and before(sacked_at(core, index).start, seq):
        entry = sacked_at(core, index)
        total += min(diff(entry.end, entry.start), diff(seq, entry.start))
        index = entry.next
    return total


@compiled
def lost_edge(core, tcb, conn):
    """RFC 6675 section 4, IsLost: what is not reported and lies before this sequence number is lost.

    Above it fewer than DUPLICATE_THRESHOLD ranges and no more than two segments' bytes are reported.
    """
    bytes_left, ranges_left = sacked_bytes(core, conn), conn.sack_count
    edge = tcb.snd_una
    index = conn.sack_head
    while index != NONE and (ranges_left >= DUPLICATE_THRESHOLD or bytes_left > (DUPLICATE_THRESHOLD - 1) * tcb.mss):
        entry = sacked_at(core, index)
        edge = entry.start
        bytes_left -= diff(entry.end, entry.start)
        ranges_left -= 1
        index = entry.next
    return edge


@compiled
def _unsacked_between(core, conn, start, end):
    """Bytes of [start, end) that are not reported."""
    total = max(diff(end, start), 0)
    index = conn.sack_head
    while index != NONE:
        entry = sacked_at(core, index)
        low = start if before(entry.start, start) else entry.start
        high = end if after(entry.end, end) else entry.end
        total -= max(diff(high, low), 0) if after(end, start) else 0
        index = entry.next
    return total


@compiled
def pipe(core, tcb, conn):
    """RFC 6675 section 4, SetPipe: bytes that are still on their way, as far as one can tell."""
    in_flight = diff(tcb.snd_max, tcb.snd_una) - sacked_bytes(core, conn)
    lost = _unsacked_between(core, conn, tcb.snd_una, lost_edge(core, tcb, conn))
    again = _unsacked_between(core, conn, tcb.snd_una, conn.high_rxt)
    return in_flight - lost + again


@compiled
def next_hole(core, tcb, conn, edge):
    """RFC 6675 section 4, NextSeg (1) and (3): the first missing range from high_rxt on and below `edge`. (start, end)."""
    start = conn.high_rxt if after(conn.high_rxt, tcb.snd_una) else tcb.snd_una
    index = conn.sack_head
    while index != NONE:
        entry = sacked_at(core, index)
        if before(start, entry.start):
            break
        if before(start, entry.end):
            start = entry.end
        index = entry.next
    if index == NONE or not before(start, edge):
        return start, start
    return start, sacked_at(core, index).start


@compiled
def skip_sacked(core, conn, seq):
    """The first sequence number from `seq` on that is not reported, and where the next report begins (or `seq`)."""
    index = conn.sack_head
    while index != NONE:
        entry = sacked_at(core, index)
        if before(seq, entry.start):
            return seq, diff(entry.start, seq)
        if before(seq, entry.end):
            seq = entry.end
        index = entry.next
    return seq, 0
