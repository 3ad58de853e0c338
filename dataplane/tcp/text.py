"""Segment text and FIN: the seventh and eighth checks of RFC 9293 section 3.10.7.4, and what goes to the channel."""

from mpserve.dataplane.blocks import block_address, give_block
from mpserve.dataplane.events import READ, emit, event_room, extend_read, handle_of
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import NO_BLOCK, block_at, counters_at, delayed_put
from mpserve.dataplane.memory import copy
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.backlog import offer_deferred
from mpserve.dataplane.tcp.buffers import fit_receive_buffer
from mpserve.dataplane.tcp.connection import finish, last_window, notify, owe_ack, owe_bare, owe_output
from mpserve.dataplane.tcp.reassembly import (
    forget_kept,
    keep_fin,
    keep_out_of_order,
    keep_unread,
    loses_frames,
    next_in_order,
    note_duplicate,
    take_unread,
)
from mpserve.dataplane.tcp.seq import add, before, diff
from mpserve.dataplane.tcp.settings import DEFERRED, QUICKACK
from mpserve.dataplane.tcp.state import AFTER_FIN, TIME_WAIT
from mpserve.dataplane.wire import tcp

_PAUSE_US = 1000


@compiled
def process_text(core, tcb, conn, seg, now):
    """Seventh, process the segment text. `check_sequence` has trimmed it to the window."""
    if seg.length == 0:
        return
    if tcb.flags & flags.FIN_RECEIVED:  # nothing may follow a FIN
        counters_at(core.counters).drop_after_close += 1
        return
    if conn.settings & DEFERRED:
        offer_deferred(core, tcb, conn)
    if conn.idle_us > 0:
        conn.idle_at = now + conn.idle_us
    pause = now - conn.text_at
    conn.text_at = now
    if seg.seq != tcb.rcv_nxt:
        counters_at(core.counters).out_of_order += 1
        _note_gap(conn, now)
        conn.ooo_newest = seg.seq
        keep_out_of_order(core, conn, seg.seq, seg.payload, seg.length)
        owe_ack(core, tcb)  # RFC 5681 section 4.2: at once
        return
    taken = _accept_text(core, tcb, conn, seg.payload, seg.length)
    tcb.rcv_nxt = add(tcb.rcv_nxt, taken)
    if taken < seg.length:
        seg.flags &= ~tcp.FIN  # the FIN lies beyond what found room
        counters_at(core.counters).drop_no_block += 1
        owe_ack(core, tcb)
    elif conn.ooo_head != NO_BLOCK:
        _note_gap(conn, now)
        _take_kept(core, tcb, conn, seg)
        owe_ack(core, tcb)
    elif _is_wanted_at_once(tcb, conn, seg, now, pause):
        owe_ack(core, tcb)
    else:
        _delay_ack(core, tcb, conn)
    fit_receive_buffer(core, tcb, conn, now)


@compiled
def _note_gap(conn, now):
    conn.gaps_seen += 1
    conn.lossy_at = now


@compiled
def _is_wanted_at_once(tcb, conn, seg, now, pause):
    """Whether the peer may wait for the ACK of a full segment: the path has lost something lately, or the peer has paused
    though it has more (no PSH), for an ACK was lost or its timer has expired."""
    if seg.length < tcb.mss:
        return False
    return loses_frames(conn, now) or (pause > max(tcb.srtt_us, _PAUSE_US) and seg.flags & tcp.PSH == 0)


@compiled
def _delay_ack(core, tcb, conn):
    """RFC 9293 section 3.8.6.3: at least every second full segment at once; the rest may wait for data to go with it."""
    if diff(tcb.rcv_nxt, tcb.rcv_acked) >= 2 * tcb.mss or conn.settings & QUICKACK:
        tcb.flags |= flags.ACK_NOW
        owe_output(core, tcb)
        return
    tcb.flags |= flags.ACK_DELAYED
    if tcb.flags & flags.IN_DELAYED == 0:
        tcb.flags |= flags.IN_DELAYED
        delayed_put(core, core.delayed_count, tcb.slot)
        core.delayed_count += 1


@compiled
def _accept_text(core, tcb, conn, address, length):
    """Hand in-order bytes to the channel: into the arena if it reads and nothing is before them; how many were taken."""
    counters = counters_at(core.counters)
    if tcb.flags & flags.USER_CLOSED:
        counters.drop_after_close += 1
        return length
    if (
        tcb.flags & flags.READING
        and conn.rcv_queued == 0
        and core.arena_used + length <= core.arena_bytes
        and event_room(core)
    ):
        deliver_read(core, tcb, address, length)
        return length
    taken = keep_unread(core, conn, address, length)
    if tcb.flags & (flags.READING | flags.READ_ONCE):
        notify(core, tcb, 0)
    return taken


@compiled
def deliver_read(core, tcb, address, length):
    """Copy bytes to the arena and tell the channel."""
    start = core.arena_used
    copy(core.arena + start, address, length)
    core.arena_used = start + length
    counters = counters_at(core.counters)
    counters.bytes_read += length
    if not extend_read(core, tcb.slot, start, start + length):
        counters.read_events += 1
        emit(core, READ, tcb.slot, handle_of(tcb), start, start + length)


@compiled
def deliver_from(core, tcb, conn, room):
    """Move unread data to the arena, `room` bytes at most, and tell the channel; how many."""
    start = core.arena_used
    taken = take_unread(core, conn, core.arena + start, room)
    if taken == 0:
        return 0
    core.arena_used = start + taken
    counters = counters_at(core.counters)
    counters.bytes_read += taken
    counters.read_events += 1
    emit(core, READ, tcb.slot, handle_of(tcb), start, start + taken)
    return taken


@compiled
def _take_kept(core, tcb, conn, seg):
    """Deliver kept segments that the arrival has brought into order. A kept FIN that is reached counts as this segment's."""
    is_first = True
    while tcb.flags & flags.FIN_KEPT == 0 or tcb.rcv_nxt != conn.fin_seq:
        index = next_in_order(core, tcb, conn)
        if index == NO_BLOCK:
            return
        block = block_at(core, index)
        old = diff(tcb.rcv_nxt, block.seq)
        fresh = block.end - old
        if is_first and old > 0:
            note_duplicate(core, conn, block.seq, min(old, block.end))
        is_first = False
        if fresh > 0:
            taken = _accept_text(core, tcb, conn, block_address(core, index) + old, fresh)
            tcb.rcv_nxt = add(tcb.rcv_nxt, taken)
        give_block(core, index)
    seg.seq, seg.length = tcb.rcv_nxt, 0
    seg.flags |= tcp.FIN


@compiled
def check_fin(core, tcb, conn, seg, now):
    """Eighth, check the FIN bit. A FIN behind a gap is kept, as text is, and counts once the gap is filled."""
    if seg.flags & tcp.FIN == 0 or tcb.flags & flags.FIN_RECEIVED:
        return
    if add(seg.seq, seg.length) == tcb.rcv_nxt:
        _take_fin(core, tcb, conn, seg)
    else:
        _fin_out_of_order(core, tcb, conn, seg, now)


@compiled
def _fin_out_of_order(core, tcb, conn, seg, now):
    seq = add(seg.seq, seg.length)
    if before(seq, tcb.rcv_nxt):
        return
    if seg.length == 0:
        _note_gap(conn, now)
        conn.ooo_newest = seq
    if tcb.flags & flags.FIN_KEPT == 0:
        if keep_fin(core, conn, seq):
            tcb.flags |= flags.FIN_KEPT
    elif seq == conn.fin_seq:
        note_duplicate(core, conn, seq, 1)
    owe_ack(core, tcb)


@compiled
def _take_fin(core, tcb, conn, seg):
    tcb.flags |= flags.FIN_RECEIVED
    tcb.rcv_nxt = add(tcb.rcv_nxt, 1)
    forget_kept(core, conn)
    if tcb.flags & flags.USER_CLOSED == 0:
        notify(core, tcb, flags.NOTIFY_EOF)
    state = AFTER_FIN[tcb.state]
    if state == TIME_WAIT:
        owe_bare(core, tcb, conn, seg.mac, tcb.snd_nxt, tcp.ACK, last_window(tcb, conn))
        finish(core, tcb, conn, TIME_WAIT)
        return
    tcb.state = state
    owe_ack(core, tcb)
