"""What a connection may send now: retransmissions, new data, FIN, window probes, ACKs (RFC 9293 section 3.8)."""

import numpy as np

from mpserve.dataplane.frames import send_segment
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import NEVER, NO_BLOCK, counters_at, sent_at
from mpserve.dataplane.neighbor import ASK_EVERY_US, await_neighbor, is_given_up, resolve
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.congestion import allowance, flight, restart_after_idle
from mpserve.dataplane.tcp.connection import UNREACHABLE, destroy, fin_is_acknowledged
from mpserve.dataplane.tcp.reassembly import loses_frames
from mpserve.dataplane.tcp.rexmit import TAIL_LOSS, start_timer
from mpserve.dataplane.tcp.sack import has_report
from mpserve.dataplane.tcp.sendbuf import find_offset
from mpserve.dataplane.tcp.sent import LOST, NONE, in_flight, length_of, note_probe, note_sent, note_sent_again
from mpserve.dataplane.tcp.seq import add, diff
from mpserve.dataplane.tcp.settings import NAGLE
from mpserve.dataplane.tcp.state import SYN_RECEIVED, SYN_SENT
from mpserve.dataplane.tcp.syn_sent import owe_syn
from mpserve.dataplane.wheel import arm
from mpserve.dataplane.wire import tcp

_MANY_SEGMENTS = 4  # in one turn
_MOST_ACKS = 8  # of one turn


@compiled
def window_to_advertise(core, tcb, conn):
    """The window field. The right edge moves right by a segment at least (RFC 9293 section 3.8.6.2.2), and never left.

    The field is rounded down, which may seem to take some bytes back; they are accepted all the same (RFC 7323 section
    2.4). Rounded up it would grow with each ACK, and never close before a peer that sends single bytes.
    """
    edge = max(diff(tcb.rcv_adv, tcb.rcv_nxt), 0)
    room = conn.rcvbuf - conn.rcv_queued
    if room - edge < min(conn.rcvbuf // 2, tcb.mss):
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
        if length == 0 or tcb.flags & flags.SACK == 0 or not has_report(conn):
            tcb.flags &= ~flags.ACK_NOW  # a SACK option wants a segment without payload
    return sent, block, position


@compiled
def owes_only_ack(tcb):
    return tcb.flags & flags.ACK_NOW != 0 and tcb.lost == 0 and flight(tcb) >= tcb.snd_queued


@compiled
def output(core, tcb, conn, now):
    """Send what the connection owes and may send. False if frames ran out and it must be listed again."""
    mac = resolve(core, conn, now)
    if tcb.state == SYN_SENT or tcb.state == SYN_RECEIVED:
        return _output_syn(core, tcb, conn, mac, now)
    if mac == 0:
        if tcb.rexmit_at == NEVER:
            start_timer(core, tcb, now)
        return True
    conn.mac = mac
    if tcb.flags & flags.PROBE and not _send_window_probe(core, tcb, conn, mac, now):
        return False
    if tcb.lost > 0 and not _send_lost(core, tcb, conn, mac, now):
        return False
    if (tcb.snd_queued > 0 or tcb.flags & flags.FIN_QUEUED) and not _send_new(core, tcb, conn, mac, now):
        return False
    if tcb.flags & flags.TAIL_PROBE and not _send_tail_probe(core, tcb, conn, mac, now):
        return False
    if tcb.flags & flags.ACK_NOW:
        return _send_acks(core, tcb, conn, mac, now)
    conn.gaps_seen = 0
    return True


@compiled
def _send_acks(core, tcb, conn, mac, now):
    """A turn's one ACK. On a path that loses frames there are some before it, lest the loss of this one stop the peer.

    RFC 9293 section 3.8.6.3 wants one for every second full segment, RFC 5681 section 4.2 one for each near a gap.
    """
    if conn.gaps_seen > 1:
        _emit(core, tcb, conn, mac, tcb.snd_nxt, 0, NO_BLOCK, 0, 0)
    else:
        _send_acks_between(core, tcb, conn, mac, now)
    conn.gaps_seen = 0
    sent, _, _ = _emit(core, tcb, conn, mac, tcb.snd_nxt, 0, NO_BLOCK, 0, 0)
    return sent


@compiled
def _send_acks_between(core, tcb, conn, mac, now):
    """ACKs of parts of what has come, if the path has lost something lately."""
    segments = diff(tcb.rcv_nxt, tcb.rcv_acked) // tcb.mss
    if segments < _MANY_SEGMENTS or not loses_frames(conn, now):
        return
    acks = min(segments // 2, _MOST_ACKS)
    wnd = window_to_advertise(core, tcb, conn)
    start = tcb.rcv_acked
    for i in range(1, acks):
        ack = add(start, segments * i // acks * tcb.mss)
        edge_kept = min(wnd + (diff(tcb.rcv_nxt, ack) >> np.int64(tcb.rcv_scale)), 0xFFFF)
        send_segment(core, tcb, conn, mac, tcb.snd_nxt, ack, tcp.ACK, edge_kept, NO_BLOCK, 0, 0)


@compiled
def _output_syn(core, tcb, conn, mac, now):
    """Our SYN, first or again; until the next hop's MAC is known, it waits in the list of the unresolved."""
    if tcb.flags & flags.RETRANSMIT == 0:
        return _answer_in_syn_received(core, tcb, conn, mac)
    if mac == 0:
        if is_given_up(core, conn):
            destroy(core, tcb, conn, UNREACHABLE)
            return True
        await_neighbor(core, tcb.slot)
        tcb.rexmit_at = now + ASK_EVERY_US
        arm(core, tcb.slot, tcb.rexmit_at)
        return True
    if not owe_syn(core, tcb, conn, mac):
        return False
    tcb.flags &= ~(flags.RETRANSMIT | flags.ACK_NOW)
    conn.sent_at = now
    tcb.rexmit_at = now + tcb.rto_us
    arm(core, tcb.slot, tcb.rexmit_at)
    return True


@compiled
def _answer_in_syn_received(core, tcb, conn, mac):
    """An ACK that is owed is one without SYN: two that answered each other's SYN-ACKs by theirs would never end."""
    if tcb.flags & flags.ACK_NOW == 0 or tcb.state != SYN_RECEIVED or mac == 0:
        return True
    sent, _, _ = _emit(core, tcb, conn, mac, tcb.snd_nxt, 0, NO_BLOCK, 0, 0)
    return sent


@compiled
def _send_range(core, tcb, conn, mac, start, length):
    """Once more what lies at `start`: data, and where the range goes beyond it, the FIN."""
    offset = diff(start, tcb.snd_una)
    data = min(length, tcb.snd_queued - offset)
    flag_bits = tcp.FIN if length > data else 0
    block, position = NO_BLOCK, 0
    if data > 0:
        block, position = find_offset(core, tcb, offset)
        if offset + data == tcb.snd_queued:
            flag_bits |= tcp.PSH
    sent, _, _ = _emit(core, tcb, conn, mac, start, flag_bits, block, position, data)
    return sent


@compiled
def _send_window_probe(core, tcb, conn, mac, now):
    """RFC 9293 section 3.8.6.1: an octet into the closed window, the first that is not acknowledged, or else a new one.

    Into a window that was only too small to fill (section 3.8.6.2.1), what it takes.
    """
    is_new = tcb.snd_una == tcb.snd_nxt
    if tcb.snd_queued > 0:
        length = min(min(max(tcb.snd_wnd, 1), tcb.mss), tcb.snd_queued) if is_new else 1
        if not _send_range(core, tcb, conn, mac, tcb.snd_una, length):
            return False
        if is_new:
            note_sent(core, tcb, tcb.snd_nxt, add(tcb.snd_nxt, length), now)
            tcb.snd_nxt = add(tcb.snd_nxt, length)
    tcb.flags &= ~flags.PROBE
    return True


@compiled
def _send_lost(core, tcb, conn, mac, now):
    """What is lost, the lowest first, as far as the congestion window allows; the first on entering recovery in any case."""
    previous, index = NONE, tcb.sent_head
    while tcb.lost > 0 and index != NONE:
        record = sent_at(core, index)
        if record.marks & LOST == 0:
            previous, index = index, record.next
            continue
        length = min(length_of(record), tcb.mss)
        if tcb.flags & flags.RETRANSMIT == 0 and in_flight(tcb) + length > tcb.cwnd:
            break
        if not _send_range(core, tcb, conn, mac, record.start, length):
            return False
        counters_at(core.counters).retransmits += 1
        tcb.flags &= ~flags.RETRANSMIT
        conn.undo_bytes += length
        note_sent_again(core, tcb, previous, index, length, now)
        previous, index = NONE, tcb.sent_head
    if tcb.rexmit_at == NEVER:
        start_timer(core, tcb, now)
    return True


@compiled
def _send_tail_probe(core, tcb, conn, mac, now):
    """RFC 8985 section 7.3: the last segment again.

    The RFC prefers a new one. But a duplicate is acknowledged at once, where a lone new segment waits for the peer's delayed
    ACK: 40 ms on a path of 100 us, each time that the only ACK of a window is lost.
    """
    if flight(tcb) > 0:
        length = min(length_of(sent_at(core, tcb.sent_tail)), tcb.mss)
        start = add(tcb.snd_nxt, -length)
        if not _send_range(core, tcb, conn, mac, start, length):
            return False
        note_probe(core, tcb, start, now)
        counters = counters_at(core.counters)
        counters.retransmits += 1
        counters.tail_loss_probes += 1
        tcb.flags |= flags.TAIL_PROBED
        conn.tail_end = tcb.snd_nxt
    tcb.flags &= ~flags.TAIL_PROBE
    return True


@compiled
def _send_new(core, tcb, conn, mac, now):
    """Data from snd_nxt on as far as both windows allow, then the FIN; what has left is noted as one range."""
    if flight(tcb) > tcb.snd_queued or fin_is_acknowledged(tcb):
        return True  # the FIN is out
    restart_after_idle(core, tcb, conn, now)
    start = tcb.snd_nxt
    is_first = tcb.snd_una == start
    if is_first:
        conn.progress_at = now
    done = _send_data(core, tcb, conn, mac)
    if done and flight(tcb) == tcb.snd_queued and tcb.flags & flags.FIN_QUEUED:
        done, _, _ = _emit(core, tcb, conn, mac, tcb.snd_nxt, tcp.FIN, NO_BLOCK, 0, 0)
        if done:
            tcb.flags |= flags.FIN_SENT
            tcb.snd_nxt = add(tcb.snd_nxt, 1)
    if tcb.snd_nxt != start:
        note_sent(core, tcb, start, tcb.snd_nxt, now)
        conn.sent_at = now
    if tcb.rexmit_at == NEVER or (tcb.snd_nxt != start and (is_first or tcb.rexmit_kind == TAIL_LOSS)):
        start_timer(core, tcb, now)  # also where it ran for a window to open, not for anything sent
    return done


@compiled
def _is_silly(tcb, offset, length):
    """RFC 9293 section 3.8.6.2.1: so little room, less than half of the largest window, that a larger one is worth waiting for.

    While anything is in flight any room below a segment is: its ACK comes. If nothing comes, what fits leaves as a probe.
    """
    return offset > 0 or 2 * length < tcb.max_wnd


@compiled
def _send_data(core, tcb, conn, mac):
    """New segments as far as both windows allow; False if frames ran out."""
    offset, room = flight(tcb), allowance(tcb)
    if offset >= tcb.snd_queued or room <= 0:
        return True
    block, position = find_offset(core, tcb, offset)
    while offset < tcb.snd_queued:
        left = tcb.snd_queued - offset
        length = min(min(tcb.mss, left), room)
        if length <= 0 or (length < tcb.mss and length < left and _is_silly(tcb, offset, length)):
            break
        if length < tcb.mss and offset > 0 and conn.settings & NAGLE and tcb.flags & flags.FIN_QUEUED == 0:
            break
        flag_bits = tcp.PSH if length == left else 0
        sent, block, position = _emit(core, tcb, conn, mac, tcb.snd_nxt, flag_bits, block, position, length)
        if not sent:
            return False
        tcb.snd_nxt = add(tcb.snd_nxt, length)
        offset += length
        room -= length
    return True
