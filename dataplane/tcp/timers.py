"""Deadlines: retransmission and window probes, delayed ACKs, the handler's timeout, states that end, SYN-ACKs, TIME_WAIT."""

import numpy as np

from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import (
    NEVER,
    WHEEL_BUCKETS,
    conn_at,
    core_at,
    counters_at,
    tcb_at,
    timer_at,
    wheel_get,
)
from mpserve.dataplane.neighbor import doubt
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.backlog import offer_deferred, syn_timer
from mpserve.dataplane.tcp.congestion import on_reports, on_timeout
from mpserve.dataplane.tcp.connection import (
    FINISHED,
    TIMED_OUT,
    abort,
    destroy,
    fin_is_acknowledged,
    notify,
    owe_ack,
    owe_bare,
    owe_output,
)
from mpserve.dataplane.tcp.rack import may_probe_tail
from mpserve.dataplane.tcp.rexmit import REORDERING, RTO, TAIL_LOSS, suspect_until
from mpserve.dataplane.tcp.rtt import back_off
from mpserve.dataplane.tcp.seq import add, diff
from mpserve.dataplane.tcp.settings import DEFERRED, heard
from mpserve.dataplane.tcp.state import CLOSED, FIN_WAIT_2, SYN_RECEIVED, SYN_SENT
from mpserve.dataplane.tcp.timewait import expire_time_waits
from mpserve.dataplane.wheel import TICK_SHIFT, arm, disarm
from mpserve.dataplane.wire.tcp import ACK

R1, MOST_RETRIES = 3, 250


@unit("timers")
def timers(core_address, now):
    """Fire all deadlines before `now` (to the wheel's 1024 us)."""
    core = core_at(core_address)
    last = (now >> TICK_SHIFT) - 1
    tick = max(core.wheel_tick + 1, last - WHEEL_BUCKETS + 1)
    fired = 0
    while tick <= last:
        core.wheel_tick = tick
        fired += _visit(core, tick & (WHEEL_BUCKETS - 1), now)
        tick += 1
    expire_time_waits(core, now)
    return fired


@compiled
def _visit(core, bucket, now):
    entry = wheel_get(core, bucket)
    fired = 0
    while entry >= 0:
        timer = timer_at(core, entry)
        following = timer.next
        if timer.deadline <= now:
            disarm(core, entry)
            fired += 1
            if entry < core.connections:
                connection_timer(core, tcb_at(core, entry), conn_at(core, entry), now)
            else:
                syn_timer(core, entry - core.connections, now)
        entry = following
    return fired


@compiled
def connection_timer(core, tcb, conn, now):
    """Act on the deadlines that have passed, and arm for the earliest that is left."""
    if tcb.rexmit_at <= now:
        _rexmit_timer(core, tcb, conn, now)
    if conn.delack_at <= now:
        conn.delack_at = NEVER
        if tcb.flags & flags.ACK_DELAYED:
            counters_at(core.counters).acks_delayed += 1
            owe_ack(core, tcb)
    if conn.idle_at <= now:
        conn.idle_at = now + conn.idle_us
        notify(core, tcb, flags.NOTIFY_TIMEOUT)
    if conn.keep_at <= now and tcb.state != CLOSED:
        _keepalive(core, tcb, conn, now)
    if conn.state_at <= now and tcb.state != CLOSED:
        _abandon(core, tcb, conn)
    if tcb.state != CLOSED:
        earliest = min(min(tcb.rexmit_at, conn.delack_at), min(conn.idle_at, conn.state_at))
        arm(core, tcb.slot, min(earliest, conn.keep_at))


@compiled
def _abandon(core, tcb, conn):
    """A closed handle has waited long enough: for the peer's FIN, or for any progress with what was written before."""
    if conn.settings & DEFERRED:
        offer_deferred(core, tcb, conn)
    elif tcb.state == FIN_WAIT_2:
        destroy(core, tcb, conn, FINISHED)
    else:
        abort(core, tcb, conn, TIMED_OUT)


@compiled
def _rexmit_timer(core, tcb, conn, now):
    """What the timer was set for: RACK's reordering window, a tail loss probe, or the RTO."""
    if tcb.state == SYN_SENT or tcb.state == SYN_RECEIVED:
        _syn_timeout(core, tcb, conn, now)
    elif _is_user_timeout(tcb, conn, now):
        abort(core, tcb, conn, TIMED_OUT)
    elif tcb.rexmit_kind == REORDERING:
        counters_at(core.counters).reordering_waits += 1
        tcb.rexmit_at = NEVER
        suspect_until(core, tcb, on_reports(core, tcb, conn, now), now)
        owe_output(core, tcb)
    elif tcb.rexmit_kind == TAIL_LOSS and tcb.snd_wnd > 0:
        if may_probe_tail(tcb):
            tcb.flags |= flags.TAIL_PROBE
        tcb.rexmit_kind = RTO
        tcb.rexmit_at = now + tcb.rto_us
        owe_output(core, tcb)
    else:
        _retransmission_timeout(core, tcb, conn, now)


@compiled
def _count_retry(core, tcb, conn, now):
    """RFC 9293 section 3.8.3: after R1 retransmissions the next hop is doubted; when to give up is the caller's business."""
    if tcb.retries == R1:
        doubt(core, conn, now)
    tcb.retries = min(tcb.retries + 1, MOST_RETRIES)
    back_off(core, tcb)


@compiled
def _syn_timeout(core, tcb, conn, now):
    """Our SYN again, the wait doubled, and at last given up (RFC 9293 section 3.8.3). One that waits for ARP does not count."""
    tcb.rexmit_at = NEVER
    if tcb.flags & flags.RETRANSMIT == 0:
        if tcb.retries >= core.syn_retries:
            abort(core, tcb, conn, TIMED_OUT)
            return
        _count_retry(core, tcb, conn, now)
        tcb.flags |= flags.RETRANSMIT
    owe_output(core, tcb)


@compiled
def _is_user_timeout(tcb, conn, now):
    """RFC 9293 section 3.8.3, RFC 5482: what was sent has been unacknowledged for as long as the user allows."""
    return conn.user_timeout_ms > 0 and now - conn.progress_at >= np.int64(conn.user_timeout_ms) * 1000


@compiled
def _keepalive(core, tcb, conn, now):
    """RFC 9293 section 3.8.4: an idle connection is asked for an ACK; after keep_count unanswered probes it is given up."""
    if tcb.snd_una != tcb.snd_nxt or tcb.snd_queued > 0:
        heard(conn, now)  # the retransmission timer looks after it
        return
    if conn.keep_probes >= conn.keep_count:
        abort(core, tcb, conn, TIMED_OUT)
        return
    conn.keep_probes += 1
    conn.keep_at = now + np.int64(conn.keep_interval_ms) * 1000
    counters_at(core.counters).keepalive_probes += 1
    wnd = min(max(diff(tcb.rcv_adv, tcb.rcv_nxt), 0) >> np.int64(tcb.rcv_scale), 0xFFFF)
    owe_bare(core, tcb, conn, conn.mac, add(tcb.snd_nxt, -1), ACK, wnd)


@compiled
def _retransmission_timeout(core, tcb, conn, now):
    """RFC 6298 (5.4) to (5.6): back off and send from snd_una again, or probe a closed window; at last give up.

    A user timeout takes the place of the number of retransmissions, be it sooner or later (RFC 9293 section 3.8.3).
    """
    tcb.rexmit_at = NEVER
    tcb.rexmit_kind = RTO
    if tcb.snd_una == tcb.snd_nxt and tcb.snd_queued == 0:
        if tcb.flags & flags.FIN_QUEUED == 0 or fin_is_acknowledged(tcb):
            return
    counters = counters_at(core.counters)
    if conn.user_timeout_ms == 0 and tcb.retries >= core.retries:
        abort(core, tcb, conn, TIMED_OUT)
        return
    if tcb.snd_queued > 0 and (tcb.snd_wnd == 0 or tcb.snd_una == tcb.snd_nxt):
        counters.zero_window_probes += 1
        tcb.flags |= flags.PROBE
    else:
        counters.timeouts += 1
        on_timeout(core, tcb, conn)
    _count_retry(core, tcb, conn, now)
    tcb.rexmit_at = now + tcb.rto_us
    if conn.user_timeout_ms > 0:
        tcb.rexmit_at = min(tcb.rexmit_at, conn.progress_at + np.int64(conn.user_timeout_ms) * 1000)
    owe_output(core, tcb)
