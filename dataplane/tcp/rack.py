"""RACK-TLP, RFC 8985: a segment is lost when one that was sent enough later has been delivered; a probe shows lost tails.

It needs selective acknowledgments. The ranges of `sent` are its segments, `now` is in microseconds.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import sent_at
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.sent import LOST, NONE, SACKED, SENT_AGAIN, drop_acknowledged, mark_lost
from mpserve.dataplane.tcp.seq import after, before, diff
from mpserve.dataplane.tcp.timestamps import sent_before_echo

DUPLICATE_THRESHOLD = 3
MAX_ACK_DELAY_US = 200_000  # how long a peer may hold back the ACK of a lone segment
LEAST_PROBE_US = 4000  # on short paths a peer's scheduling takes longer than the path; Linux adds two jiffies
_PERSIST = 16  # recoveries for which a widened reordering window stays


@compiled
def clear_rack(conn, snd_una):
    conn.rack_sent_at = 0
    conn.rack_rtt_us = 0
    conn.min_rtt_us = 0
    conn.rack_end = conn.fack = conn.dsack_round = conn.tail_end = snd_una
    conn.reo_steps = 1
    conn.reo_persist = 0


@compiled
def begin_with_handshake(tcb, conn):
    """The handshake's round trip, where it was measured, is the least so far."""
    conn.min_rtt_us = tcb.srtt_us


@compiled
def delivered(core, tcb, conn, seg, record, end, now):
    """RFC 8985 section 6.2, steps 1 to 3: a range is acknowledged up to `end` for the first time, selectively or not."""
    rtt = now - record.sent_at
    if record.marks & SENT_AGAIN:
        if rtt < conn.min_rtt_us or not sent_before_echo(core, tcb, conn, seg, record.sent_at):
            return  # it answers an earlier transmission
    else:
        if conn.min_rtt_us == 0 or rtt < conn.min_rtt_us:
            conn.min_rtt_us = max(rtt, 1)
        if before(end, conn.fack):
            tcb.flags |= flags.REORDERED
    conn.rack_rtt_us = rtt
    if _sent_after(record.sent_at, end, conn.rack_sent_at, conn.rack_end):
        conn.rack_sent_at = record.sent_at
        conn.rack_end = end
    if after(end, conn.fack):
        conn.fack = end


@compiled
def take_acknowledged(core, tcb, conn, seg, now):
    """Take the ranges before seg.ack off; a round-trip time from the first of them, by Karn's rule, or -1."""
    rtt = -1
    again = 0
    while tcb.sent_head != NONE and before(sent_at(core, tcb.sent_head).start, seg.ack):
        record = sent_at(core, tcb.sent_head)
        again |= record.marks & SENT_AGAIN
        if record.marks & SACKED == 0:
            if rtt < 0:
                rtt = now - record.sent_at
            delivered(core, tcb, conn, seg, record, seg.ack if after(record.end, seg.ack) else record.end, now)
        drop_acknowledged(core, tcb, seg.ack)
    return rtt if again == 0 else -1


@compiled
def _sent_after(at, end, other_at, other_end):
    return at > other_at or (at == other_at and after(end, other_end))


@compiled
def widen_reordering_window(tcb, conn):
    """RFC 8985 section 6.2, step 4: a duplicate was reported, so something was sent again in vain; once a round trip."""
    if not before(tcb.snd_una, conn.dsack_round):
        conn.dsack_round = tcb.snd_nxt
        conn.reo_steps += 1
        conn.reo_persist = _PERSIST


@compiled
def end_of_recovery(conn):
    """The widened window is given up after 16 recoveries."""
    if conn.reo_persist > 0:
        conn.reo_persist -= 1
        if conn.reo_persist == 0:
            conn.reo_steps = 1


@compiled
def _reordering_window(tcb, conn):
    if tcb.flags & flags.REORDERED == 0:
        if tcb.flags & flags.IN_RECOVERY or tcb.dup_acks >= DUPLICATE_THRESHOLD:
            return 0
        if tcb.sacked > (DUPLICATE_THRESHOLD - 1) * tcb.mss:
            return 0
    return min(conn.reo_steps * (conn.min_rtt_us // 4), tcb.srtt_us)


@compiled
def detect_losses(core, tcb, conn, now):
    """RFC 8985 section 6.2, step 5. Microseconds until the next range will be taken for lost; 0: none is suspected."""
    window = conn.rack_rtt_us + _reordering_window(tcb, conn)
    wait = 0
    index = tcb.sent_head
    while index != NONE:
        record = sent_at(core, index)
        is_older = _sent_after(conn.rack_sent_at, conn.rack_end, record.sent_at, record.end)
        if record.marks == 0 and not is_older:
            break  # and so is nothing that follows: it was sent later still
        if is_older and record.marks & (SACKED | LOST) == 0:
            left = record.sent_at + window - now
            if left <= 0:
                mark_lost(tcb, record)
            else:
                wait = max(wait, left)
        index = record.next
    return wait


# -- tail loss probes, section 7


@compiled
def may_probe_tail(tcb):
    """Section 7.2: with SACK, nothing reported or lost, no recovery, and no probe on its way."""
    if tcb.flags & (flags.SACK | flags.IN_RECOVERY | flags.TAIL_PROBED) != flags.SACK:
        return False
    return tcb.sacked == 0 and tcb.lost == 0 and tcb.srtt_us > 0 and not before(tcb.snd_una, tcb.recover)


@compiled
def probe_timeout(tcb):
    """Section 7.2: two round trips, and the peer's delay of ACKs where one segment is out; never later than the RTO."""
    wait = 2 * tcb.srtt_us + LEAST_PROBE_US
    if diff(tcb.snd_nxt, tcb.snd_una) <= tcb.mss:
        wait += MAX_ACK_DELAY_US
    return min(wait, tcb.rto_us)


@compiled
def probe_answered(tcb, conn, seg, advanced, duplicate_reported):
    """Section 7.4.2: an ACK reaches the probe. Whether the probe has repaired a loss, which the window must answer for."""
    if tcb.flags & flags.TAIL_PROBED == 0 or before(seg.ack, conn.tail_end):
        return False
    if duplicate_reported or after(seg.ack, conn.tail_end):
        tcb.flags &= ~flags.TAIL_PROBED
        return not duplicate_reported
    if not advanced and seg.sack_count == 0 and seg.length == 0:  # original and probe have both arrived
        tcb.flags &= ~flags.TAIL_PROBED
    return False
