"""Selective acknowledgment: the blocks that our ACKs report (RFC 2018), and what the peer's reports mark in `sent`."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import (
    NO_BLOCK,
    block_at,
    counters_at,
    sent_at,
)
from mpserve.dataplane.memory import load32
from mpserve.dataplane.tcp.rack import delivered, widen_reordering_window
from mpserve.dataplane.tcp.sent import NONE, SACKED, forget_marks, join_sacked, length_of, split
from mpserve.dataplane.tcp.seq import add, after, before
from mpserve.dataplane.tcp.undo import duplicate_reported
from mpserve.dataplane.wire import tcp

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
def has_report(conn):
    """Whether an ACK has something to report: data out of order, or a duplicate."""
    return conn.ooo_head != NO_BLOCK or conn.dsack_start != conn.dsack_end


@compiled
def write_sack_option(core, conn, at, room):
    """A SACK option of the duplicate and the out-of-order data, two NOPs before it, in `room` bytes. (length, partial sum).

    A duplicate is reported first, and once (RFC 2883). Then the run that holds the segment that came last, then what the
    report before told of, in its order (RFC 2018 section 4): each block is told of several times, should ACKs be lost.
    """
    most = (room - 4) // 8
    if not has_report(conn) or most < 1:
        return 0, 0
    count, total = 0, 0
    if conn.dsack_start != conn.dsack_end:
        total += tcp.write_sack_block(at + 4, conn.dsack_start, conn.dsack_end)
        conn.dsack_end = conn.dsack_start
        count = 1
    first = at + 4 + 8 * count
    for index in _runs_to_report(core, conn):
        if index != NO_BLOCK and count < most:
            total += _write_run(core, at + 4 + 8 * count, index)
            count += 1
    _remember_report(conn, first, at + 4 + 8 * count)
    counters_at(core.counters).sacks_sent += 1
    return 4 + 8 * count, total + tcp.put_word(at, tcp.NOPS_SACK | (2 + 8 * count))


@compiled
def _write_run(core, at, index):
    """The SACK block of the run that begins with a kept block; its partial sum."""
    _, end = _end_of_run(core, index)
    return tcp.write_sack_block(at, block_at(core, index).seq, end)


@compiled
def _is_in(seq, start, end):
    return not before(seq, start) and before(seq, end)


@compiled
def _runs_to_report(core, conn):
    """The first blocks of runs, those to be reported first at first; NO_BLOCK stands where there is none."""
    newest = second = third = fourth = fifth = NO_BLOCK
    other = another = third_other = NO_BLOCK
    index = conn.ooo_head
    while index != NO_BLOCK:
        last, end = _end_of_run(core, index)
        start = block_at(core, index).seq
        if _is_in(conn.ooo_newest, start, end):
            newest = index
        elif _is_in(conn.reported_1, start, end):
            second = index
        elif _is_in(conn.reported_2, start, end):
            third = index
        elif _is_in(conn.reported_3, start, end):
            fourth = index
        elif _is_in(conn.reported_4, start, end):
            fifth = index
        elif other == NO_BLOCK:
            other = index
        elif another == NO_BLOCK:
            another = index
        else:
            third_other = index
        index = block_at(core, last).next
    return newest, second, third, fourth, fifth, other, another, third_other


@compiled
def _remember_report(conn, at, end):
    """Where the runs begin whose blocks lie at [at, end)."""
    if at < end:
        conn.reported_1 = load32(at)
    if at + 8 < end:
        conn.reported_2 = load32(at + 8)
    if at + 16 < end:
        conn.reported_3 = load32(at + 16)
    if at + 24 < end:
        conn.reported_4 = load32(at + 24)


# -- what the peer reports


@compiled
def take_sacks(core, tcb, conn, seg, now):
    """Mark what the segment's SACK blocks report. (whether anything new was, whether a duplicate was reported).

    A first block below the cumulative ACK is a D-SACK (RFC 2883). Any other outside (snd_una, snd_nxt] is a lie, and counted.
    """
    counters = counters_at(core.counters)
    learned, duplicate = False, False
    taken = 0  # a bit for each block
    for _ in range(seg.sack_count):
        i = _lowest_block(seg, taken)
        taken |= 1 << i
        start, end = load32(seg.sacks + 8 * i), load32(seg.sacks + 8 * i + 4)
        if i == 0 and before(start, end) and not after(end, seg.ack):
            duplicate = True
            duplicate_reported(tcb, conn, start, end)
        elif not before(start, end) or before(start, tcb.snd_una) or after(end, tcb.snd_nxt):
            counters.sacks_refused += 1
        elif _mark(core, tcb, conn, seg, start, end, now):
            learned = True
    if learned:
        counters.sacks_received += 1
    if duplicate:
        counters.dsacks_received += 1
        widen_reordering_window(tcb, conn)
    return learned, duplicate


@compiled
def _lowest_block(seg, taken):
    """The block with the lowest start of those not taken: RFC 8985 section 6.2, step 3, looks at them in that order."""
    lowest = -1
    for i in range(seg.sack_count):
        if taken >> i & 1 == 0 and (lowest < 0 or before(load32(seg.sacks + 8 * i), load32(seg.sacks + 8 * lowest))):
            lowest = i
    return lowest


@compiled
def _mark(core, tcb, conn, seg, start, end, now):
    """Mark [start, end) as reported; whether any of it was not yet. Where ranges run out, less is marked."""
    learned = False
    previous, index = NONE, tcb.sent_head
    while index != NONE and before(sent_at(core, index).start, end):
        record = sent_at(core, index)
        if after(record.end, start):
            if record.marks & SACKED == 0:
                if before(record.start, start):
                    if not split(core, tcb, index, start):
                        break
                    previous, index = index, record.next
                    continue
                if after(record.end, end) and not split(core, tcb, index, end):
                    break
                delivered(core, tcb, conn, seg, record, record.end, now)
                forget_marks(tcb, record)
                record.marks = SACKED
                tcb.sacked += length_of(record)
                learned = True
            index = join_sacked(core, tcb, previous, index)
        previous = index
        index = sent_at(core, index).next
    if index != NONE:
        join_sacked(core, tcb, previous, index)
    return learned
