"""What a connection may send now: retransmissions, new data, FIN, window probes, ACKs (RFC 9293 section 3.8)."""

import numpy as np

from mpserve.dataplane.frames import send_segment
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import NEVER, NO_BLOCK, counters_at
from mpserve.dataplane.neighbor import resolve
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.congestion import allowance, restart_after_idle
from mpserve.dataplane.tcp.connection import fin_is_acknowledged
from mpserve.dataplane.tcp.sack import NONE, lost_edge, next_hole, pipe, skip_sacked
from mpserve.dataplane.tcp.sendbuf import find_offset
from mpserve.dataplane.tcp.seq import add, after, before, diff
from mpserve.dataplane.wheel import arm
from mpserve.dataplane.wire import tcp


@compiled
def window_to_advertise(core, tcb, conn):
    """The window field. The right edge moves right by a segment at least (RFC 9293 section 3.8.6.2.2), and never left.

    The field is rounded down, which may seem to take some bytes back; they are accepted all the same (RFC 7323 section
    2.4). Rounded up it would grow with each ACK, and never close before a peer that sends single bytes.
    """
    edge = max(diff(tcb.rcv_adv, tcb.rcv_nxt), 0)
    room = core.rcvbuf - conn.rcv_queued
    if room - edge < min(core.rcvbuf // 2, tcb.mss):
        room = edge
    scale = np.int64(tcb.rcv_scale)
    wnd = min(room >> scale, 0xFFFF)
    if wnd << scale > edge:
        tcb.rcv_adv = add(tcb.rcv_nxt, wnd << scale)
    return wnd


@compiled
def _emit(core, tcb, conn, mac, seq, flag_bits, block, position, length):
    """One segment, with the ACK that every segment carries."""
    wnd = window_to_advertise(core, tcb, conn)
    sent, block, position = send_segment(
        core, tcb, conn, mac, seq, tcb.rcv_nxt, flag_bits | tcp.ACK, wnd, block, position, length
    )
    if sent:
        tcb.rcv_acked = tcb.rcv_nxt
        tcb.flags &= ~(flags.ACK_DELAYED | flags.ACK_PUT_OFF)
        if length == 0 or conn.ooo_head == NO_BLOCK or tcb.flags & flags.SACK == 0:
            tcb.flags &= ~flags.ACK_NOW  # a SACK option wants a segment without payload
    return sent, block, position


@compiled
def output(core, tcb, conn, now):
    """Send what the connection owes and may send. False if frames ran out and it must be listed again."""
    mac = resolve(core, conn, now)
    if mac == 0:
        _start_timer(core, tcb, now)
        return True
    conn.mac = mac
    if tcb.flags & (flags.RETRANSMIT | flags.PROBE) and not _send_again(core, tcb, conn, mac):
        return False
    if conn.sack_head != NONE and tcb.flags & flags.IN_RECOVERY and not _send_lost(core, tcb, conn, mac):
        return False
    if (tcb.snd_queued > 0 or tcb.flags & flags.FIN_QUEUED) and not _send_new(core, tcb, conn, mac, now):
        return False
    if tcb.flags & flags.ACK_NOW:
        sent, _, _ = _emit(core, tcb, conn, mac, tcb.snd_nxt, 0, NO_BLOCK, 0, 0)
        return sent
    return True


@compiled
def _send_again(core, tcb, conn, mac):
    """The segment at snd_una once more (fast retransmit), or one byte of it into a closed window."""
    length = min(tcb.snd_queued, 1 if tcb.flags & flags.PROBE else tcb.mss)
    flag_bits = 0
    if length == tcb.snd_queued and tcb.flags & flags.FIN_SENT:
        flag_bits = tcp.FIN
    if length == 0 and flag_bits == 0:
        tcb.flags &= ~(flags.RETRANSMIT | flags.PROBE)
        return True
    block, position = NO_BLOCK, 0
    if length > 0:
        block, position = find_offset(core, tcb, 0)
    sent, _, _ = _emit(core, tcb, conn, mac, tcb.snd_una, flag_bits, block, position, length)
    if sent:
        if tcb.flags & flags.RETRANSMIT:
            counters_at(core.counters).retransmits += 1
            conn.high_rxt = add(tcb.snd_una, length)
        tcb.flags &= ~(flags.RETRANSMIT | flags.PROBE)
        tcb.rtt_at = 0  # Karn: an ACK could be for either copy
        if after(add(tcb.snd_una, length), tcb.snd_max):
            tcb.snd_max = add(tcb.snd_una, length)
    return sent


@compiled
def _send_lost(core, tcb, conn, mac):
    """RFC 6675 section 5, (C): what the scoreboard shows to be lost, as far as the congestion window allows."""
    edge = lost_edge(core, tcb, conn)
    room = tcb.cwnd - pipe(core, tcb, conn)
    while room >= tcb.mss:
        start, end = next_hole(core, tcb, conn, edge)
        offset = diff(start, tcb.snd_una)
        length = min(min(diff(end, start), tcb.mss), tcb.snd_queued - offset)
        if length <= 0:
            return True
        block, position = find_offset(core, tcb, offset)
        sent, _, _ = _emit(core, tcb, conn, mac, start, 0, block, position, length)
        if not sent:
            return False
        counters_at(core.counters).retransmits += 1
        conn.high_rxt = add(start, length)
        tcb.rtt_at = 0
        room -= length
    return True


@compiled
def _send_new(core, tcb, conn, mac, now):
    """Data from snd_nxt on as far as both windows allow, then the FIN."""
    offset = diff(tcb.snd_nxt, tcb.snd_una)
    if offset > tcb.snd_queued or fin_is_acknowledged(tcb):
        return True  # the FIN is out
    restart_after_idle(core, tcb, conn, now)
    allowed = allowance(core, tcb, conn)
    block, position = NO_BLOCK, 0
    if offset < tcb.snd_queued:
        block, position = find_offset(core, tcb, offset)
    while offset < tcb.snd_queued:
        left = tcb.snd_queued - offset
        if conn.sack_head != NONE and before(
            tcb.snd_nxt, tcb.snd_max
        ):  # going back after a timeout: not what has arrived
            tcb.snd_nxt, gap = skip_sacked(core, conn, tcb.snd_nxt)
            allowed = min(allowed + diff(tcb.snd_nxt, tcb.snd_una) - offset, tcb.snd_wnd)
            offset = diff(tcb.snd_nxt, tcb.snd_una)
            if offset >= tcb.snd_queued:
                break
            left = gap if gap > 0 else tcb.snd_queued - offset
            block, position = find_offset(core, tcb, offset)
        length = min(min(tcb.mss, left), allowed - offset)
        if length <= 0 or (length < tcb.mss and length < left and offset > 0):
            break  # no room, or so little that waiting for an ACK is better (RFC 9293 section 3.8.6.2.1)
        flag_bits = tcp.PSH if length == left else 0
        sent, block, position = _emit(core, tcb, conn, mac, tcb.snd_nxt, flag_bits, block, position, length)
        if not sent:
            return False
        _advance(core, tcb, length, now)
        conn.sent_at = now
        offset += length
    if offset == tcb.snd_queued and tcb.flags & flags.FIN_QUEUED:
        sent, _, _ = _emit(core, tcb, conn, mac, tcb.snd_nxt, tcp.FIN, NO_BLOCK, 0, 0)
        if not sent:
            return False
        tcb.flags |= flags.FIN_SENT
        _advance(core, tcb, 1, now)
    _start_timer(core, tcb, now)
    return True


@compiled
def _advance(core, tcb, length, now):
    """snd_nxt moves; one segment that is not sent again is timed (RFC 6298 section 3)."""
    end = add(tcb.snd_nxt, length)
    if tcb.snd_nxt == tcb.snd_max:
        if tcb.rtt_at == 0:
            tcb.rtt_at = now
            tcb.rtt_seq = end
    else:
        counters_at(core.counters).retransmits += 1
    tcb.snd_nxt = end
    if after(end, tcb.snd_max):
        tcb.snd_max = end


@compiled
def _start_timer(core, tcb, now):
    """RFC 6298 (5.1); the same timer probes a closed window."""
    if tcb.rexmit_at == NEVER:
        tcb.rexmit_at = now + tcb.rto_us
        arm(core, tcb.slot, tcb.rexmit_at)
