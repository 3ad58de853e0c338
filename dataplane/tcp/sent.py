"""What was sent and is not acknowledged: a connection's list of ranges, each with the time that it was sent last.

The ranges are disjoint, in order, and cover [snd_una, snd_nxt); one holds what left within a short time. Their marks are the
scoreboard of RFC 6675 and the segments of RFC 8985. `tcb.sacked` and `tcb.lost` count the bytes so marked.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import free_sent_get, free_sent_put, sent_at
from mpserve.dataplane.tcp.seq import add, after, before, diff

NONE = -1
SACKED, LOST, SENT_AGAIN = 1, 2, 4
_TOGETHER_SHIFT = 6  # what leaves within 1/64 of the round-trip time shares a range


@compiled
def in_flight(tcb):
    """RFC 6675's pipe: bytes that are on their way, as far as one can tell."""
    return diff(tcb.snd_nxt, tcb.snd_una) - tcb.sacked - tcb.lost


@compiled
def _take(core, tcb):
    """A free range, or NONE. One is kept back for each connection that has none."""
    if tcb.sent_head == NONE:
        core.senders += 1
    elif core.free_sent_count <= core.connections - core.senders:
        return NONE
    core.free_sent_count -= 1
    return free_sent_get(core, core.free_sent_count)


@compiled
def _give(core, tcb, previous, index):
    """Unlink a range and give it back; the one that followed."""
    following = sent_at(core, index).next
    if previous != NONE:
        sent_at(core, previous).next = following
    else:
        tcb.sent_head = following
    if tcb.sent_tail == index:
        tcb.sent_tail = previous
    free_sent_put(core, core.free_sent_count, index)
    core.free_sent_count += 1
    if tcb.sent_head == NONE:
        core.senders -= 1
    return following


@compiled
def length_of(record):
    return diff(record.end, record.start)


@compiled
def forget_marks(tcb, record):
    if record.marks & SACKED:
        tcb.sacked -= length_of(record)
    if record.marks & LOST:
        tcb.lost -= length_of(record)
    record.marks = 0


@compiled
def mark_lost(tcb, record):
    record.marks |= LOST
    tcb.lost += length_of(record)


@compiled
def note_sent(core, tcb, start, end, now):
    """[start, end) has left for the first time."""
    tail = tcb.sent_tail
    if tail != NONE:
        last = sent_at(core, tail)
        if last.marks == 0 and now - last.sent_at <= tcb.srtt_us >> _TOGETHER_SHIFT:
            last.end = end
            return
    index = _take(core, tcb)
    if index == NONE:  # the last range grows; it counts as sent now, lest it seem lost too soon
        last = sent_at(core, tail)
        forget_marks(tcb, last)
        last.end = end
        last.sent_at = now
        return
    record = sent_at(core, index)
    record.start = start
    record.end = end
    record.sent_at = now
    record.marks = 0
    record.next = NONE
    if tail == NONE:
        tcb.sent_head = index
    else:
        sent_at(core, tail).next = index
    tcb.sent_tail = index


@compiled
def split(core, tcb, index, at):
    """Divide a range at a sequence number inside it; False if there is no range for the second part."""
    second = _take(core, tcb)
    if second == NONE:
        return False
    record, rest = sent_at(core, index), sent_at(core, second)
    rest.start = at
    rest.end = record.end
    rest.sent_at = record.sent_at
    rest.marks = record.marks
    rest.next = record.next
    record.end = at
    record.next = second
    if tcb.sent_tail == index:
        tcb.sent_tail = second
    return True


@compiled
def join_sacked(core, tcb, previous, index):
    """Make one range of two reported ones that touch: nobody asks when they were sent. The index of what holds `index` now."""
    if previous == NONE or sent_at(core, previous).marks & sent_at(core, index).marks & SACKED == 0:
        return index
    sent_at(core, previous).end = sent_at(core, index).end
    _give(core, tcb, previous, index)
    return previous


@compiled
def drop_acknowledged(core, tcb, ack):
    """Take the first range off, or its part before `ack`."""
    first = sent_at(core, tcb.sent_head)
    part = diff(ack, first.start) if after(first.end, ack) else length_of(first)
    if first.marks & SACKED:
        tcb.sacked -= part
    if first.marks & LOST:
        tcb.lost -= part
    first.start = add(first.start, part)
    if first.start == first.end:
        _give(core, tcb, NONE, tcb.sent_head)


@compiled
def clear_sent(core, tcb):
    while tcb.sent_head != NONE:
        _give(core, tcb, NONE, tcb.sent_head)
    tcb.sacked = tcb.lost = 0


@compiled
def lose_all(core, tcb):
    """Everything must be sent again, what was reported too: the peer may have thrown it away (RFC 2018 section 8)."""
    index = tcb.sent_head
    while index != NONE:
        record = sent_at(core, index)
        forget_marks(tcb, record)
        mark_lost(tcb, record)
        index = record.next


@compiled
def lose_front(core, tcb, length):
    """The first `length` bytes are lost, where no report says what is (RFC 6582)."""
    if tcb.sent_head == NONE or sent_at(core, tcb.sent_head).marks & LOST:
        return
    first = sent_at(core, tcb.sent_head)
    if length_of(first) > length:
        split(core, tcb, tcb.sent_head, add(first.start, length))
    mark_lost(tcb, sent_at(core, tcb.sent_head))


@compiled
def note_sent_again(core, tcb, previous, index, length, now):
    """The first `length` bytes of a lost range have left again."""
    record = sent_at(core, index)
    tcb.lost -= length
    if previous != NONE:
        before_it = sent_at(core, previous)
        if before_it.marks == SENT_AGAIN and before_it.sent_at == now:
            before_it.end = add(before_it.end, length)
            record.start = before_it.end
            if record.start == record.end:
                _give(core, tcb, previous, index)
            return
    if length < length_of(record) and not split(core, tcb, index, add(record.start, length)):
        tcb.lost -= length_of(record) - length  # no range for the rest: it counts as sent, and is found lost later
    record.marks = SENT_AGAIN
    record.sent_at = now


@compiled
def note_probe(core, tcb, start, now):
    """The end of what was sent, from `start` on, has left once more as a tail loss probe."""
    record = sent_at(core, tcb.sent_tail)
    if before(record.start, start) and not split(core, tcb, tcb.sent_tail, start):
        return
    record = sent_at(core, tcb.sent_tail)
    forget_marks(tcb, record)
    record.marks = SENT_AGAIN
    record.sent_at = now
