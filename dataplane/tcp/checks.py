"""The first five checks of RFC 9293 section 3.10.7.4, in its order, each a function named after it.

Each returns True if the segment goes on to the next check. `text.py` has the seventh and the eighth; URG, the sixth, is
ignored: urgent data is delivered in line.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import NEVER, counters_at
from mpserve.dataplane.neighbor import trust
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.buffers import fit_send_buffer
from mpserve.dataplane.tcp.challenge import may_challenge
from mpserve.dataplane.tcp.congestion import flight, on_duplicate_ack, on_new_ack, on_repaired_tail, on_reports
from mpserve.dataplane.tcp.connection import (
    REFUSED,
    RESET,
    destroy,
    fin_is_acknowledged,
    finish,
    notify,
    owe_ack,
    owe_output,
)
from mpserve.dataplane.tcp.rack import probe_answered, take_acknowledged
from mpserve.dataplane.tcp.reassembly import note_duplicate
from mpserve.dataplane.tcp.rexmit import start_timer, stop_timer, suspect_until
from mpserve.dataplane.tcp.rtt import reset_rto, sample_rtt
from mpserve.dataplane.tcp.sack import take_sacks
from mpserve.dataplane.tcp.sendbuf import drop_front
from mpserve.dataplane.tcp.sent import lose_all
from mpserve.dataplane.tcp.seq import add, after, before, diff
from mpserve.dataplane.tcp.settings import KEEPALIVE, heard
from mpserve.dataplane.tcp.state import AFTER_FIN_ACKED, CLOSED, FIN_WAIT_2, SYN_RECEIVED, TIME_WAIT
from mpserve.dataplane.tcp.syn_sent import check_syn_acknowledged
from mpserve.dataplane.tcp.timestamps import is_too_old
from mpserve.dataplane.wheel import arm
from mpserve.dataplane.wire import tcp


@compiled
def check_timestamp(core, tcb, conn, seg):
    """RFC 7323 section 5.3, before the first check: protection against wrapped sequence numbers. RSTs are let through."""
    if tcb.flags & flags.TIMESTAMPS == 0 or seg.flags & tcp.RST:
        return True
    if seg.ts_ok == 0:
        counters_at(core.counters).drop_no_timestamp += 1  # section 3.2
        return False
    if is_too_old(core, tcb, conn, seg):
        counters_at(core.counters).drop_paws += 1
        owe_ack(core, tcb)
        return False
    return True


@compiled
def check_sequence(core, tcb, conn, seg):
    """First, check the sequence number; what lies outside the window is trimmed off an acceptable segment."""
    window = max(diff(tcb.rcv_adv, tcb.rcv_nxt), 0)
    start = diff(seg.seq, tcb.rcv_nxt)
    length = seg.length + (1 if seg.flags & tcp.FIN else 0) + (1 if seg.flags & tcp.SYN else 0)
    if not _acceptable(start, length, window):
        return _unacceptable(core, tcb, conn, seg, start, length)
    if start < 0 and seg.flags & (tcp.SYN | tcp.RST) == 0:  # a RST counts only where it begins
        note_duplicate(core, conn, seg.seq, min(-start, seg.length))
        _trim_front(seg, -start)
        start = 0
    if start + seg.length > window:
        seg.length = window - start
        seg.flags &= ~tcp.FIN
    return True


@compiled
def _acceptable(start, length, window):
    """The four cases of RFC 9293 section 3.4, table 6; `start` counts from rcv_nxt."""
    if length == 0:
        return start == 0 if window == 0 else 0 <= start < window
    return window > 0 and start < window and start + length > 0


@compiled
def _unacceptable(core, tcb, conn, seg, start, length):
    """Answer with an ACK unless it is a RST; into a closed window, ACKs and RSTs at rcv_nxt are taken all the same."""
    counters = counters_at(core.counters)
    if seg.flags & tcp.RST:
        if start == 0:
            return True  # with text in it, which may be (RFC 9293 section 3.5.3)
        counters.drop_out_of_window += 1
        return False
    owe_ack(core, tcb)
    if tcb.state == SYN_RECEIVED and _is_crossed_syn_ack(seg, start, length):
        seg.seq = tcb.rcv_nxt  # the ACK in it counts
        seg.flags &= ~tcp.SYN
        return True
    if start == 0:  # text into a closed window: the ACK in it counts, the text doesn't
        counters.drop_window_overrun += 1
        seg.length = 0
        seg.flags &= ~tcp.FIN
        return True
    if start + length <= 0:
        counters.drop_duplicate += 1
        note_duplicate(core, conn, seg.seq, seg.length + (1 if seg.flags & tcp.FIN else 0))
    else:
        counters.drop_out_of_window += 1
    return False


@compiled
def _is_crossed_syn_ack(seg, start, length):
    """Whether it is the SYN-ACK that answers ours in a simultaneous open (RFC 9293 section 3.5 figure 8)."""
    both = tcp.SYN | tcp.ACK
    return start == -1 and length == 1 and seg.flags & both == both


@compiled
def _trim_front(seg, already):
    cut = min(already, seg.length)
    if already > seg.length:
        seg.flags &= ~tcp.FIN
    seg.seq = add(seg.seq, already)
    seg.payload += cut
    seg.length -= cut


@compiled
def check_rst(core, tcb, conn, seg):
    """Second, check the RST bit, as RFC 5961 section 3.2 has it: exactly at rcv_nxt, or else a challenge ACK."""
    if seg.flags & tcp.RST == 0:
        return True
    if seg.seq == tcb.rcv_nxt:
        destroy(core, tcb, conn, REFUSED if tcb.state == SYN_RECEIVED else RESET)
    else:
        _challenge(core, tcb)
    return False


@compiled
def check_syn(core, tcb, seg):
    """Fourth, check the SYN bit (RFC 5961 section 4.2): a challenge ACK, whatever the sequence number."""
    if seg.flags & tcp.SYN == 0:
        return True
    _challenge(core, tcb)
    return False


@compiled
def _challenge(core, tcb):
    if may_challenge(core):
        owe_ack(core, tcb)


@compiled
def check_ack(core, tcb, conn, seg, now):
    """Fifth, check the ACK field. False if the segment is dropped or the connection is over."""
    if seg.flags & tcp.ACK == 0:
        counters_at(core.counters).drop_no_ack += 1
        return False
    if conn.settings & KEEPALIVE:
        heard(conn, now)
    if tcb.state == SYN_RECEIVED and not check_syn_acknowledged(core, tcb, conn, seg):
        return False
    if after(seg.ack, tcb.snd_nxt):
        counters_at(core.counters).drop_ack_unsent += 1
        owe_ack(core, tcb)
        return False
    if (
        diff(tcb.snd_una, seg.ack) > tcb.max_wnd
    ):  # RFC 5961 section 5.2: from an ACK this old nobody has learned our numbers
        counters_at(core.counters).drop_ack_too_old += 1
        _challenge(core, tcb)
        return False
    advanced = after(seg.ack, tcb.snd_una)
    if advanced:
        _acknowledged(core, tcb, conn, seg, now)
        if fin_is_acknowledged(tcb) and not _fin_acknowledged(core, tcb, conn, now):
            return False
    elif seg.ack == tcb.snd_una:
        if tcb.snd_wnd == 0:
            tcb.retries = 0  # a live peer with a closed window is probed for ever (RFC 9293 section 3.8.6.1)
        elif tcb.flags & flags.SACK == 0 and _is_duplicate(tcb, seg):
            on_duplicate_ack(core, tcb, conn)
            owe_output(core, tcb)
    if tcb.flags & flags.SACK and (seg.sack_count > 0 or _is_recovering(tcb)):
        _take_reports(core, tcb, conn, seg, advanced, now)
    _update_window(core, tcb, seg, now)
    return True


@compiled
def _is_duplicate(tcb, seg):
    """RFC 5681 section 2's definition of a duplicate acknowledgment."""
    return (
        tcb.snd_nxt != tcb.snd_una
        and seg.length == 0
        and seg.flags & (tcp.SYN | tcp.FIN) == 0
        and (seg.wnd << tcb.snd_scale) == tcb.snd_wnd
    )


@compiled
def _is_recovering(tcb):
    """Whether an ACK without a report may show something too: that retransmissions arrive, or that a probe has."""
    if tcb.flags & (flags.IN_RECOVERY | flags.TAIL_PROBED) or tcb.sacked > 0 or tcb.lost > 0:
        return True
    return before(tcb.snd_una, tcb.recover)


@compiled
def _take_reports(core, tcb, conn, seg, advanced, now):
    """Selective acknowledgments (RFC 2018, 2883), and what they show to be lost (RFC 8985)."""
    learned, duplicate = take_sacks(core, tcb, conn, seg, now)
    if probe_answered(tcb, conn, seg, advanced, duplicate):
        on_repaired_tail(core, tcb, conn)
    if learned:
        tcb.dup_acks = min(tcb.dup_acks + 1, 250)
    wait = on_reports(core, tcb, conn, now)
    suspect_until(core, tcb, wait, now)
    owe_output(core, tcb)


@compiled
def _acknowledged(core, tcb, conn, seg, now):
    """snd_una advances: buffer, round-trip time, retransmission timer and congestion window follow."""
    acked = diff(seg.ack, tcb.snd_una)
    conn.was_out = flight(tcb)
    rtt = take_acknowledged(core, tcb, conn, seg, now)
    if rtt >= 0:
        sample_rtt(core, tcb, rtt)
    drop_front(core, tcb, min(acked, tcb.snd_queued))
    tcb.snd_una = seg.ack
    on_new_ack(core, tcb, conn, acked)
    fit_send_buffer(core, tcb, conn)
    if tcb.retries > 0:
        trust(core, conn, seg.mac, now)
    tcb.retries = 0
    conn.progress_at = now
    if tcb.flags & flags.USER_CLOSED:
        conn.state_at = now + core.fin_wait_us
    if tcb.snd_una == tcb.snd_nxt:
        stop_timer(tcb)  # RFC 6298 (5.2)
    else:
        start_timer(core, tcb, now)  # (5.3)
    if tcb.snd_queued > 0 or tcb.snd_una != tcb.snd_nxt:
        owe_output(core, tcb)
    if tcb.flags & flags.WANT_WRITABLE and tcb.snd_queued <= conn.sndbuf // 2:
        notify(core, tcb, 0)


@compiled
def _fin_acknowledged(core, tcb, conn, now):
    """Our FIN has arrived. False if the connection is over."""
    if tcb.state == FIN_WAIT_2:
        return True
    tcb.state = AFTER_FIN_ACKED[tcb.state]
    if tcb.state == FIN_WAIT_2:
        arm(core, tcb.slot, conn.state_at)
        return True
    if tcb.state == TIME_WAIT or tcb.state == CLOSED:
        state = tcb.state
        tcb.state = TIME_WAIT  # `destroy` takes a connection that is not yet CLOSED
        finish(core, tcb, conn, state)
        return False
    return True


@compiled
def _update_window(core, tcb, seg, now):
    """RFC 9293 section 3.10.7.4: only a newer segment may change the send window."""
    if before(seg.ack, tcb.snd_una):
        return
    newer = after(seg.seq, tcb.snd_wl1) or (seg.seq == tcb.snd_wl1 and not before(seg.ack, tcb.snd_wl2))
    if not newer:
        return
    window = seg.wnd << tcb.snd_scale
    if window > tcb.snd_wnd and (tcb.snd_queued > 0 or tcb.flags & flags.FIN_QUEUED):
        owe_output(core, tcb)
        if tcb.snd_wnd == 0:
            _end_probing(core, tcb, now)
    tcb.snd_wnd = window
    tcb.max_wnd = max(tcb.max_wnd, window)
    tcb.snd_wl1 = seg.seq
    tcb.snd_wl2 = seg.ack


@compiled
def _end_probing(core, tcb, now):
    """The window has opened. What was sent into the closed one is lost, and not waited for as long as the last probe was."""
    reset_rto(core, tcb)
    lose_all(core, tcb)
    if tcb.rexmit_at != NEVER:
        start_timer(core, tcb, now)
