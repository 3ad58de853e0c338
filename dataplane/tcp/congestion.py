"""Congestion control: slow start, congestion avoidance, fast retransmit and NewReno recovery (RFC 5681, RFC 6582).

In congestion avoidance the window grows by CUBIC (RFC 9438, `cubic`) unless NewReno is set.
With selective acknowledgments `rack` says what is lost (RFC 8985); what is on its way is counted as in RFC 6675.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import counters_at
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.cubic import cubic_loss, cubic_window
from mpserve.dataplane.tcp.rack import DUPLICATE_THRESHOLD, detect_losses, end_of_recovery
from mpserve.dataplane.tcp.sent import in_flight, lose_all, lose_front
from mpserve.dataplane.tcp.seq import after, before, diff
from mpserve.dataplane.tcp.settings import NEWRENO
from mpserve.dataplane.tcp.undo import forget_window, remember_window

MAX_CWND = 1 << 30
RTO_AFTER_LOST_SYN_US = 3_000_000


@compiled
def flight(tcb):
    """Bytes sent and not acknowledged."""
    return diff(tcb.snd_nxt, tcb.snd_una)


@compiled
def _after_loss(tcb, conn):
    """What ssthresh becomes: RFC 5681 (4), or RFC 9438 section 4.6.

    FlightSize is meant before the loss was noticed: the same ACK may have acknowledged most of it. But in a long recovery
    what was reported piles up behind a hole, and more is out than the window ever allowed.
    """
    out = min(max(flight(tcb), conn.was_out), tcb.cwnd)
    if conn.settings & NEWRENO == 0:
        return cubic_loss(tcb, conn, out)
    return max(out // 2, 2 * tcb.mss)


@compiled
def on_new_ack(core, tcb, conn, acked):
    """An ACK that advanced snd_una by `acked` bytes (tcb.snd_una is already moved)."""
    tcb.dup_acks = 0
    if tcb.flags & flags.IN_RECOVERY:
        _recovery_ack(core, tcb, conn, acked)
    elif not _was_limited(tcb, acked):
        return
    elif tcb.cwnd < tcb.ssthresh:
        tcb.cwnd = min(_after_slow_start_ack(tcb, acked), MAX_CWND)
    elif conn.settings & NEWRENO == 0:
        tcb.cwnd = min(cubic_window(core, tcb, conn, acked), MAX_CWND)
    else:
        tcb.cwnd = min(tcb.cwnd + max(tcb.mss * min(acked, tcb.mss) // tcb.cwnd, 1), MAX_CWND)


@compiled
def _after_slow_start_ack(tcb, acked):
    """The window doubles in a round trip however few ACKs there are: a receiver that works in batches sends two of them.

    RFC 3465's limit holds while what a timeout took for lost is sent again: what is acknowledged then may have come before.
    """
    if before(tcb.snd_una, tcb.recover):
        return tcb.cwnd + min(acked, 2 * tcb.mss)
    return max(min(tcb.cwnd + acked, tcb.ssthresh), tcb.cwnd + min(acked, tcb.mss))


@compiled
def _was_limited(tcb, acked):
    """Whether the congestion window, and not the application, held the sender back: half of it was in use (RFC 7661's aim)."""
    return 2 * (diff(tcb.snd_nxt, tcb.snd_una) + acked) > tcb.cwnd


@compiled
def restart_after_idle(core, tcb, conn, now):
    """RFC 5681 section 4.1: after an RTO without sending, no more than an initial window goes out at once."""
    if conn.sent_at != 0 and now - conn.sent_at > tcb.rto_us and tcb.snd_nxt == tcb.snd_una:
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
def after_handshake(tcb, timeouts):
    """The first window and RTO where our SYN, or SYN-ACK, has timed out: RFC 6298 (5.7), RFC 6928 section 2."""
    if timeouts > 0:
        tcb.rto_us = RTO_AFTER_LOST_SYN_US
    if timeouts > 1:
        tcb.cwnd = tcb.mss


@compiled
def _recovery_ack(core, tcb, conn, acked):
    """RFC 6582 section 3.2, step 3: full acknowledgment ends recovery, a partial one sends the next hole again."""
    if not after(tcb.recover, tcb.snd_una):
        tcb.flags &= ~(flags.IN_RECOVERY | flags.RETRANSMIT)
        tcb.cwnd = tcb.ssthresh
        if tcb.flags & flags.SACK:
            end_of_recovery(conn)
        else:
            tcb.cwnd = min(tcb.ssthresh, max(flight(tcb), tcb.mss) + tcb.mss)
        return
    if tcb.flags & flags.SACK == 0:
        lose_front(core, tcb, tcb.mss)
        tcb.flags |= flags.RETRANSMIT
        tcb.cwnd = max(tcb.cwnd - acked, tcb.mss)
        if acked >= tcb.mss:
            tcb.cwnd += tcb.mss


@compiled
def _enter_recovery(core, tcb, conn):
    remember_window(tcb, conn)
    tcb.ssthresh = _after_loss(tcb, conn)
    tcb.cwnd = tcb.ssthresh
    tcb.recover = tcb.snd_nxt
    tcb.flags |= flags.IN_RECOVERY | flags.RETRANSMIT
    counters_at(core.counters).fast_retransmits += 1


@compiled
def on_duplicate_ack(core, tcb, conn):
    """RFC 5681 section 3.2; new data may go out on the first two duplicates (RFC 3042)."""
    if tcb.flags & flags.IN_RECOVERY:
        tcb.cwnd = min(tcb.cwnd + tcb.mss, MAX_CWND)
        return
    tcb.dup_acks = min(tcb.dup_acks + 1, 250)
    if tcb.dup_acks == DUPLICATE_THRESHOLD and not before(tcb.snd_una, tcb.recover):
        _enter_recovery(core, tcb, conn)
        lose_front(core, tcb, tcb.mss)
        tcb.cwnd += DUPLICATE_THRESHOLD * tcb.mss


@compiled
def on_reports(core, tcb, conn, now):
    """What an ACK has shown to be lost (RFC 8985) begins recovery. Microseconds until more will be; 0: none is suspected."""
    wait = detect_losses(core, tcb, conn, now)
    if tcb.lost > 0 and tcb.flags & flags.IN_RECOVERY == 0 and not before(tcb.snd_una, tcb.recover):
        _enter_recovery(core, tcb, conn)
    return wait


@compiled
def on_repaired_tail(core, tcb, conn):
    """RFC 8985 section 7.4: a probe has repaired a loss that nothing else showed; the window answers for it."""
    tcb.ssthresh = _after_loss(tcb, conn)
    tcb.cwnd = min(tcb.cwnd, tcb.ssthresh)


@compiled
def on_timeout(core, tcb, conn):
    """RFC 5681 section 3.1: back to one segment; everything past snd_una will be sent again, reported or not."""
    if tcb.retries == 0:
        tcb.ssthresh = _after_loss(tcb, conn)
    tcb.cwnd = tcb.mss
    tcb.recover = tcb.snd_nxt
    tcb.flags &= ~(flags.IN_RECOVERY | flags.TAIL_PROBE | flags.TAIL_PROBED)
    tcb.flags |= flags.RETRANSMIT
    tcb.dup_acks = 0
    forget_window(conn)
    lose_all(core, tcb)


@compiled
def allowance(tcb):
    """How many bytes more may leave: by the congestion window, limited transmit (RFC 3042), and the peer's window."""
    window = tcb.cwnd
    if tcb.flags & (flags.IN_RECOVERY | flags.SACK) == 0 and tcb.dup_acks < DUPLICATE_THRESHOLD:
        window += tcb.dup_acks * tcb.mss
    return min(window - in_flight(tcb), tcb.snd_wnd - flight(tcb))
