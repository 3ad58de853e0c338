"""Congestion control: slow start, congestion avoidance, fast retransmit and NewReno recovery (RFC 5681, RFC 6582).

In congestion avoidance the window grows by CUBIC (RFC 9438, `cubic`) unless NewReno is set (core.cubic = 0).
With selective acknowledgments recovery is RFC 6675's: `sack` says what is lost and how much is on its way.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import counters_at
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.cubic import cubic_loss, cubic_window
from mpserve.dataplane.tcp.sack import DUPLICATE_THRESHOLD, NONE, lost_edge, pipe, sacked_below
from mpserve.dataplane.tcp.seq import after, before, diff

MAX_CWND = 1 << 30


@compiled
def flight(tcb):
    """Bytes sent and not acknowledged."""
    return diff(tcb.snd_nxt, tcb.snd_una)


@compiled
def _after_loss(core, tcb, conn):
    """What ssthresh becomes: RFC 5681 (4), or RFC 9438 section 4.6."""
    out = diff(tcb.snd_max, tcb.snd_una)
    if core.cubic != 0:
        return cubic_loss(tcb, conn, out)
    return max(out // 2, 2 * tcb.mss)


@compiled
def on_new_ack(core, tcb, conn, acked):
    """An ACK that advanced snd_una by `acked` bytes (tcb.snd_una is already moved)."""
    tcb.dup_acks = 0
    if tcb.flags & flags.IN_RECOVERY:
        _recovery_ack(tcb, conn, acked)
    elif not _was_limited(tcb, acked):
        return
    elif tcb.cwnd < tcb.ssthresh:
        tcb.cwnd = min(tcb.cwnd + min(acked, 2 * tcb.mss), MAX_CWND)  # RFC 3465, L = 2
    elif core.cubic != 0:
        tcb.cwnd = min(cubic_window(core, tcb, conn, acked), MAX_CWND)
    else:
        tcb.cwnd = min(tcb.cwnd + max(tcb.mss * min(acked, tcb.mss) // tcb.cwnd, 1), MAX_CWND)


@compiled
def _was_limited(tcb, acked):
    """Whether the congestion window, and not the application, held the sender back: half of it was in use (RFC 7661's aim)."""
    return 2 * (diff(tcb.snd_max, tcb.snd_una) + acked) > tcb.cwnd


@compiled
def restart_after_idle(core, tcb, conn, now):
    """RFC 5681 section 4.1: after an RTO without sending, no more than an initial window goes out at once."""
    if conn.sent_at != 0 and now - conn.sent_at > tcb.rto_us and tcb.snd_max == tcb.snd_una:
        initial = initial_window(tcb.mss)
        if tcb.cwnd > initial:
            tcb.ssthresh = max(tcb.ssthresh, tcb.cwnd * 3 // 4)
            tcb.cwnd = initial
            conn.epoch_at = 0


@compiled
def initial_window(mss):
    """RFC 6928 section 2."""
    return min(10 * mss, max(2 * mss, 14_600))


@compiled
def _recovery_ack(tcb, conn, acked):
    """RFC 6582 section 3.2, steps 3: full acknowledgment ends recovery, a partial one sends the next hole again."""
    if not after(tcb.recover, tcb.snd_una):
        tcb.flags &= ~(flags.IN_RECOVERY | flags.RETRANSMIT)
        tcb.cwnd = tcb.ssthresh
        if tcb.flags & flags.SACK == 0:
            tcb.cwnd = min(tcb.ssthresh, max(flight(tcb), tcb.mss) + tcb.mss)
        return
    if tcb.flags & flags.SACK:
        if not before(tcb.snd_una, conn.high_rxt):  # nothing that was sent again is missing, and yet there is a hole
            tcb.flags |= flags.RETRANSMIT
        return
    tcb.flags |= flags.RETRANSMIT
    tcb.cwnd = max(tcb.cwnd - acked, tcb.mss)
    if acked >= tcb.mss:
        tcb.cwnd += tcb.mss


@compiled
def on_duplicate_ack(core, tcb, conn):
    """RFC 5681 section 3.2; new data may go out on the first two duplicates (RFC 3042)."""
    if tcb.flags & flags.IN_RECOVERY:
        tcb.cwnd = min(tcb.cwnd + tcb.mss, MAX_CWND)
        return
    tcb.dup_acks = min(tcb.dup_acks + 1, 250)
    if tcb.dup_acks == DUPLICATE_THRESHOLD and not before(tcb.snd_una, tcb.recover):
        tcb.ssthresh = _after_loss(core, tcb, conn)
        tcb.cwnd = tcb.ssthresh + DUPLICATE_THRESHOLD * tcb.mss
        tcb.recover = tcb.snd_max
        tcb.flags |= flags.IN_RECOVERY | flags.RETRANSMIT
        counters_at(core.counters).fast_retransmits += 1


@compiled
def on_sack(core, tcb, conn):
    """RFC 6675 section 5: a report of something new; the third, or one that shows a loss, begins recovery."""
    if tcb.flags & flags.IN_RECOVERY or before(tcb.snd_una, tcb.recover):
        return
    tcb.dup_acks = min(tcb.dup_acks + 1, 250)
    if tcb.dup_acks >= DUPLICATE_THRESHOLD or after(lost_edge(core, tcb, conn), tcb.snd_una):
        tcb.ssthresh = _after_loss(core, tcb, conn)
        tcb.cwnd = tcb.ssthresh
        tcb.recover = tcb.snd_max
        conn.high_rxt = tcb.snd_una
        tcb.flags |= flags.IN_RECOVERY | flags.RETRANSMIT
        counters_at(core.counters).fast_retransmits += 1


@compiled
def on_timeout(core, tcb, conn):
    """RFC 5681 section 3.1: back to one segment; everything past snd_una will be sent again."""
    if tcb.retries == 0:
        tcb.ssthresh = _after_loss(core, tcb, conn)
    tcb.cwnd = tcb.mss
    tcb.recover = tcb.snd_max
    tcb.flags &= ~(flags.IN_RECOVERY | flags.RETRANSMIT)
    tcb.dup_acks = 0
    tcb.snd_nxt = tcb.snd_una


@compiled
def allowance(core, tcb, conn):
    """How many bytes past snd_una may be in flight: the smaller of both windows, with limited transmit."""
    window = tcb.cwnd
    if tcb.flags & flags.IN_RECOVERY and tcb.flags & flags.SACK:
        return min(flight(tcb) + max(tcb.cwnd - pipe(core, tcb, conn), 0), tcb.snd_wnd)
    if tcb.flags & flags.IN_RECOVERY == 0 and tcb.dup_acks < DUPLICATE_THRESHOLD:
        window += tcb.dup_acks * tcb.mss
    if conn.sack_head != NONE and before(tcb.snd_nxt, tcb.snd_max):
        window += sacked_below(core, conn, tcb.snd_nxt)
    return min(window, tcb.snd_wnd)
