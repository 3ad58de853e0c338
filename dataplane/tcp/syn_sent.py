"""SYN_SENT, and SYN_RECEIVED of a connection that we opened ourselves (RFC 9293 sections 3.10.7.3 and 3.10.7.4)."""

from mpserve.dataplane.control import carry_ip_fields, owe_segment
from mpserve.dataplane.events import CONNECT, emit, event_room, handle_of
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import control_at, counters_at
from mpserve.dataplane.neighbor import learn
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.backlog import segment_size
from mpserve.dataplane.tcp.congestion import after_handshake, initial_window
from mpserve.dataplane.tcp.connection import REFUSED, destroy, notify, owe_ack, owe_output
from mpserve.dataplane.tcp.rack import begin_with_handshake, clear_rack
from mpserve.dataplane.tcp.rexmit import stop_timer
from mpserve.dataplane.tcp.rtt import sample_rtt
from mpserve.dataplane.tcp.seq import add
from mpserve.dataplane.tcp.state import AFTER_CLOSE, ESTABLISHED, SYN_RECEIVED, SYN_SENT
from mpserve.dataplane.tcp.timestamps import stamp_control
from mpserve.dataplane.wire import tcp


@compiled
def owe_syn(core, tcb, conn, mac):
    """List our SYN, with an ACK once the peer's has come; False if there is no room."""
    if tcb.state == SYN_SENT:
        listed = owe_segment(core, conn, mac, tcb.snd_una, 0, tcp.SYN, min(conn.rcvbuf, 0xFFFF))
    else:
        listed = owe_segment(core, conn, mac, tcb.snd_una, tcb.rcv_nxt, tcp.SYN | tcp.ACK, min(conn.rcvbuf, 0xFFFF))
    if not listed:
        return False
    carry_ip_fields(core, conn)
    control = control_at(core, core.control_count - 1)
    control.mss = core.mss
    offered = tcb.state == SYN_SENT
    control.scale = core.scale if offered or tcb.rcv_scale > 0 else -1
    control.sack_ok = 1 if offered or tcb.flags & flags.SACK else 0
    if offered or tcb.flags & flags.TIMESTAMPS:
        stamp_control(core, conn, tcb.ts_recent)
    return True


@compiled
def syn_sent_arrives(core, tcb, conn, seg, now):
    """RFC 9293 section 3.10.7.3, check by check. True if the segment's text and FIN are still to be looked at."""
    if seg.flags & tcp.ACK and seg.ack != tcb.snd_nxt:
        if seg.flags & tcp.RST == 0:
            counters_at(core.counters).rsts_sent += 1
            owe_segment(core, seg, seg.mac, seg.ack, 0, tcp.RST, 0)
        return False
    if seg.flags & tcp.RST:
        if seg.flags & tcp.ACK:
            counters_at(core.counters).connections_refused += 1
            destroy(core, tcb, conn, REFUSED)
        return False
    if seg.flags & tcp.SYN == 0:
        counters_at(core.counters).drop_tcp_flags += 1
        return False
    _take_syn(core, tcb, conn, seg, now)
    if seg.flags & tcp.ACK:
        if tcb.retries == 0:
            sample_rtt(core, tcb, now - conn.sent_at)
        owe_ack(core, tcb)
        establish(core, tcb, conn, seg)
        seg.seq = add(seg.seq, 1)
        seg.flags &= ~tcp.SYN
        return True
    tcb.state = SYN_RECEIVED  # simultaneous open: the peer's SYN has crossed ours
    tcb.flags |= flags.RETRANSMIT
    owe_output(core, tcb)
    return False


@compiled
def _take_syn(core, tcb, conn, seg, now):
    """What the peer's SYN tells: its sequence space and options."""
    tcb.rcv_nxt = tcb.rcv_acked = add(seg.seq, 1)
    tcb.rcv_adv = add(tcb.rcv_nxt, min(conn.rcvbuf, 0xFFFF))
    conn.rcv_round = tcb.rcv_nxt
    tcb.snd_scale = max(seg.scale, 0)
    tcb.rcv_scale = core.scale if seg.scale >= 0 else 0
    tcb.mss = segment_size(core, seg)
    if seg.sack_ok != 0:
        tcb.flags |= flags.SACK
    if seg.ts_ok != 0:
        tcb.flags |= flags.TIMESTAMPS
        tcb.ts_recent = seg.ts_val
        conn.ts_recent_at = now
        tcb.mss -= tcp.TIMESTAMPS_BYTES
    tcb.cwnd = initial_window(tcb.mss)
    tcb.snd_wnd = tcb.max_wnd = seg.wnd
    tcb.snd_wl1 = seg.seq
    conn.mac = seg.mac
    conn.neighbor = learn(core, seg.remote, seg.mac, now)


@compiled
def establish(core, tcb, conn, seg):
    """Both SYNs are acknowledged: the channel's connect is complete, and what it has written meanwhile may leave."""
    tcb.state = ESTABLISHED
    if tcb.flags & flags.FIN_QUEUED:
        tcb.state = AFTER_CLOSE[ESTABLISHED]
    tcb.snd_una = tcb.snd_nxt
    tcb.recover = tcb.snd_nxt
    tcb.snd_wl2 = seg.ack
    after_handshake(tcb, tcb.retries)
    tcb.retries = 0
    tcb.flags &= ~(flags.CONNECTING | flags.RETRANSMIT)
    clear_rack(conn, tcb.snd_nxt)
    begin_with_handshake(tcb, conn)
    stop_timer(tcb)
    counters_at(core.counters).connections_opened += 1
    if event_room(core):
        emit(core, CONNECT, tcb.slot, handle_of(tcb), 0, 0)
    else:
        notify(core, tcb, flags.NOTIFY_CONNECT)
    owe_output(core, tcb)


@compiled
def check_syn_acknowledged(core, tcb, conn, seg):
    """The ACK check in SYN_RECEIVED: our SYN must be acknowledged, or the segment gets a RST. Whether the segment goes on."""
    if seg.ack != tcb.snd_nxt:
        counters_at(core.counters).rsts_sent += 1
        owe_segment(core, seg, seg.mac, seg.ack, 0, tcp.RST, 0)
        return False
    tcb.snd_wnd = seg.wnd << tcb.snd_scale
    tcb.max_wnd = max(tcb.max_wnd, tcb.snd_wnd)
    establish(core, tcb, conn, seg)
    return True
