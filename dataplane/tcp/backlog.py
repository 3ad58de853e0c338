"""Listeners and the SYN backlog: LISTEN and SYN_RECEIVED (RFC 9293 sections 3.10.7.2 and 3.10.7.4).

A connection gets a TCB only when its handshake is complete, so a SYN costs about 100 bytes of a bounded table.
"""

import numpy as np

from mpserve.dataplane.control import carry_ip_fields, owe_segment
from mpserve.dataplane.events import ACCEPT, emit, event_room, handle_of
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import (
    CONTROL_ROWS,
    NEVER,
    SYN,
    conn_at,
    control_at,
    cookie_syn_at,
    counters_at,
    free_syn_get,
    free_syn_put,
    listener_at,
    syn_at,
    tcb_at,
    time_wait_at,
)
from mpserve.dataplane.neighbor import learn
from mpserve.dataplane.siphash import absorb_addresses, finish
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.challenge import may_challenge
from mpserve.dataplane.tcp.congestion import after_handshake, initial_window
from mpserve.dataplane.tcp.connection import (
    INITIAL_RTO_US,
    notify,
    open_connection,
    release,
)
from mpserve.dataplane.tcp.cookies import owe_cookie, take_cookie
from mpserve.dataplane.tcp.rack import begin_with_handshake, clear_rack
from mpserve.dataplane.tcp.reset import answer_with_rst
from mpserve.dataplane.tcp.rtt import sample_rtt
from mpserve.dataplane.tcp.seq import add, after, diff
from mpserve.dataplane.tcp.settings import DEFERRED, default_settings
from mpserve.dataplane.tcp.state import CLOSED, ESTABLISHED
from mpserve.dataplane.tcp.table import find, insert, remove
from mpserve.dataplane.tcp.timestamps import stamp_control
from mpserve.dataplane.wheel import arm, disarm
from mpserve.dataplane.wire import tcp

_SIZE = SYN.itemsize
DEFAULT_MSS = 536  # RFC 9293 section 3.7.1
MIN_MSS = 64  # a smaller offer is raised: it would only multiply frames


@compiled
def find_syn(core, key):
    return find(core.syn_flows, core.syn_flow_count - 1, key, core.syns, _SIZE)


@compiled
def find_listener(core, address, port):
    """The listener for a local address and port, an exact address before any; -1 if none."""
    found = -1
    for i in range(core.listener_count):
        listener = listener_at(core, i)
        if listener.used == 0:
            break  # they are added in order, and stay
        if listener.port == port:
            if listener.address == address:
                return i
            if listener.address == 0:
                found = i
    return found


@compiled
def initial_sequence_number(core, key):
    """RFC 6528 section 3: a clock of 4 us plus a keyed hash of the four-tuple, a message of 36 bytes."""
    keyed = finish(absorb_addresses(core, key), (36 << 56) | np.int64(key.ports))
    return add(keyed & 0xFFFFFFFF, (core.now >> 2) & 0xFFFFFFFF)


@compiled
def _next_incarnation(core, seg, waiting):
    """The sequence number for a SYN that opens TIME_WAIT's entry `waiting` anew: beyond all of the last connection's.

    RFC 9293 section 3.6.1 (1). The clock alone is slower than a fast sender.
    """
    iss = initial_sequence_number(core, seg)
    least = add(time_wait_at(core, waiting).snd_nxt, 0x10000)
    return iss if after(iss, least) else least


@compiled
def segment_size(core, seg):
    """What a SYN allows, as far as our own MTU does."""
    return max(min(seg.mss if seg.mss > 0 else DEFAULT_MSS, core.mss), MIN_MSS)


@compiled
def syn_arrives(core, seg, listener, waiting, now):
    """A SYN for a listener: remember it and owe a SYN-ACK; with a full backlog the SYN-ACK is a cookie.

    `waiting` is the TIME_WAIT entry whose flow it opens anew, or -1.
    """
    counters = counters_at(core.counters)
    counters.syns_received += 1
    if core.free_syn_count == 0:
        counters.backlog_full += 1
        owe_cookie(core, seg, listener, segment_size(core, seg))
        return
    core.free_syn_count -= 1
    index = free_syn_get(core, core.free_syn_count)
    syn = syn_at(core, index)
    syn.remote_high, syn.remote = seg.remote_high, seg.remote
    syn.local_high, syn.local = seg.local_high, seg.local
    syn.ports, syn.hash = seg.ports, seg.hash
    syn.irs = seg.seq
    syn.iss = initial_sequence_number(core, seg) if waiting < 0 else _next_incarnation(core, seg, waiting)
    syn.mss = segment_size(core, seg)
    syn.snd_wnd = seg.wnd
    syn.snd_scale = seg.scale
    syn.sack_ok = seg.sack_ok
    syn.ts_ok = seg.ts_ok
    syn.ts_recent = seg.ts_val if seg.ts_ok != 0 else 0
    syn.listener = listener
    syn.retries = 0
    syn.used = 1
    syn.at = now
    syn.mac = seg.mac
    insert(core.syn_flows, core.syn_flow_count - 1, syn.hash, index)
    listener_at(core, listener).backlogged += 1
    owe_syn_ack(core, syn)
    arm(core, core.connections + index, now + INITIAL_RTO_US)


@compiled
def owe_syn_ack(core, syn):
    if owe_segment(core, syn, syn.mac, syn.iss, add(syn.irs, 1), tcp.SYN | tcp.ACK, min(core.rcvbuf, 0xFFFF)):
        listener = listener_at(core, syn.listener)
        carry_ip_fields(core, listener)
        control = control_at(core, core.control_count - 1)
        most = listener.max_segment
        control.mss = min(core.mss, most) if most > 0 else core.mss
        control.scale = core.scale if syn.snd_scale >= 0 else -1
        control.sack_ok = syn.sack_ok
        if syn.ts_ok != 0:
            stamp_control(core, syn, syn.ts_recent)


@compiled
def forget_syn(core, index):
    syn = syn_at(core, index)
    remove(core.syn_flows, core.syn_flow_count - 1, syn.hash, index)
    disarm(core, core.connections + index)
    listener_at(core, syn.listener).backlogged -= 1
    syn.used = 0
    free_syn_put(core, core.free_syn_count, index)
    core.free_syn_count += 1


@compiled
def syn_timer(core, index, now):
    """Send the SYN-ACK again, doubling the wait; give up after the set number of times."""
    syn = syn_at(core, index)
    if syn.retries >= core.syn_ack_retries:
        forget_syn(core, index)
        return
    if core.control_count == CONTROL_ROWS:
        arm(core, core.connections + index, now)  # many at once: the next tick's egress has room
        return
    syn.retries += 1
    counters_at(core.counters).syn_acks_resent += 1
    owe_syn_ack(core, syn)
    arm(core, core.connections + index, now + (INITIAL_RTO_US << syn.retries))


@compiled
def syn_received_arrives(core, index, seg, now):
    """A segment for a backlog entry. The slot of the connection that it completes, or -1; -2: handle it as for LISTEN."""
    syn = syn_at(core, index)
    if seg.flags & tcp.SYN and seg.flags & tcp.ACK == 0:
        if seg.seq == syn.irs:
            owe_syn_ack(core, syn)
            return -1
        forget_syn(core, index)  # the peer begins anew
        return -2
    if not _is_in_window(core, syn, seg):
        counters_at(core.counters).drop_out_of_window += 1
        if seg.flags & tcp.RST == 0:
            _owe_ack(core, syn)
        return -1
    if seg.flags & tcp.RST:
        if seg.seq == add(syn.irs, 1):
            forget_syn(core, index)
        elif may_challenge(core):  # RFC 5961 section 3.2
            _owe_ack(core, syn)
        return -1
    if seg.flags & tcp.ACK == 0:
        counters_at(core.counters).drop_no_ack += 1
        return -1
    if seg.ack != add(syn.iss, 1):
        counters_at(core.counters).rsts_sent += 1
        owe_segment(core, seg, seg.mac, seg.ack, 0, tcp.RST, 0)
        return -1
    slot = _establish(core, syn, seg, now)
    if slot >= 0:
        after_handshake(tcb_at(core, slot), syn.retries)
        if syn.retries == 0:
            sample_rtt(core, tcb_at(core, slot), now - syn.at)
            begin_with_handshake(tcb_at(core, slot), conn_at(core, slot))
        forget_syn(core, index)
    return slot


@compiled
def _is_in_window(core, syn, seg):
    """The acceptability test (RFC 9293 section 3.4), in a window that is never closed."""
    start = diff(seg.seq, add(syn.irs, 1))
    length = seg.length + (1 if seg.flags & tcp.FIN else 0) + (1 if seg.flags & tcp.SYN else 0)
    return start < core.rcvbuf and (start + length > 0 or start == 0)


@compiled
def _owe_ack(core, syn):
    """An ACK without SYN, in the name of the connection that may come of it."""
    wnd = min(core.rcvbuf, 0xFFFF) >> (core.scale if syn.snd_scale >= 0 else 0)
    if owe_segment(core, syn, syn.mac, add(syn.iss, 1), add(syn.irs, 1), tcp.ACK, wnd) and syn.ts_ok != 0:
        stamp_control(core, syn, syn.ts_recent)


@compiled
def cookie_arrives(core, seg, listener, now):
    """An ACK for a listener: the slot of the connection that it completes if it brings a cookie back, or -1."""
    if not take_cookie(core, seg, listener):
        answer_with_rst(core, seg)
        return -1
    return _establish(core, cookie_syn_at(core, 0), seg, now)


@compiled
def _establish(core, syn, seg, now):
    """The handshake is complete: what was remembered of the SYN becomes a connection, offered to the channel."""
    counters = counters_at(core.counters)
    listener = listener_at(core, syn.listener)
    if (listener.accepts == 0 or not event_room(core)) and listener.queued >= core.accept_queue:
        counters.drop_accept_full += 1
        return -1
    slot = open_connection(core, syn)
    if slot < 0:
        counters.drop_connections_full += 1
        return -1
    tcb, conn = tcb_at(core, slot), conn_at(core, slot)
    default_settings(core, conn, now)
    conn.tos = listener.tos
    if listener.ttl > 0:
        conn.ttl = listener.ttl
    _start(core, tcb, syn, seg)
    clear_rack(conn, tcb.snd_una)
    conn.rcv_round = tcb.rcv_nxt
    conn.mac = seg.mac
    conn.listener = syn.listener
    conn.ts_recent_at = now
    conn.neighbor = learn(core, seg.remote, seg.mac, now)
    counters.connections_accepted += 1
    if listener.max_segment > 0:
        tcb.mss = min(tcb.mss, listener.max_segment)
    if listener.defer_ms > 0 and seg.length == 0:
        _defer(core, tcb, conn, listener, now)
    else:
        offer(core, tcb, conn, listener)
    return slot


@compiled
def _defer(core, tcb, conn, listener, now):
    """Wait for data before the channel hears of the connection (TCP_DEFER_ACCEPT), but not for ever."""
    tcb.flags |= flags.UNACCEPTED
    conn.settings |= DEFERRED
    conn.state_at = now + np.int64(listener.defer_ms) * 1000
    arm(core, tcb.slot, conn.state_at)


@compiled
def offer_deferred(core, tcb, conn):
    """Data has come, or the wait is over."""
    conn.settings &= ~DEFERRED
    conn.state_at = NEVER
    tcb.flags &= ~flags.UNACCEPTED
    offer(core, tcb, conn, listener_at(core, conn.listener))


@compiled
def _start(core, tcb, syn, seg):
    """The send and receive sequence spaces of a connection whose SYNs are both acknowledged."""
    tcb.state = ESTABLISHED
    tcb.snd_una = tcb.snd_nxt = add(syn.iss, 1)
    tcb.rcv_nxt = tcb.rcv_acked = add(syn.irs, 1)
    tcb.snd_scale = max(syn.snd_scale, 0)
    tcb.rcv_scale = core.scale if syn.snd_scale >= 0 else 0
    tcb.snd_wnd = tcb.max_wnd = seg.wnd << tcb.snd_scale
    tcb.snd_wl1 = seg.seq
    tcb.snd_wl2 = seg.ack
    tcb.rcv_adv = add(tcb.rcv_nxt, min(core.rcvbuf, 0xFFFF))
    tcb.mss = syn.mss
    if syn.sack_ok != 0:
        tcb.flags |= flags.SACK
    if syn.ts_ok != 0:
        tcb.flags |= flags.TIMESTAMPS
        tcb.ts_recent = syn.ts_recent
        tcb.mss = syn.mss - tcp.TIMESTAMPS_BYTES
    tcb.cwnd = initial_window(tcb.mss)
    tcb.recover = tcb.snd_una


@compiled
def offer(core, tcb, conn, listener):
    """Complete an accept that the channel has asked for, or let the connection wait in the listener's queue."""
    if listener.accepts > 0 and event_room(core):
        listener.accepts -= 1
        tcb.flags |= flags.READING
        emit(core, ACCEPT, tcb.slot, handle_of(tcb), conn.listener, listener.queued)
        counters_at(core.counters).accept_events += 1
        return
    tcb.flags |= flags.UNACCEPTED
    conn.next = -1
    if listener.queued == 0:
        listener.queue_head = tcb.slot
    else:
        conn_at(core, listener.queue_tail).next = tcb.slot
    listener.queue_tail = tcb.slot
    listener.queued += 1
    if listener.accepts > 0:
        core.accepts_waiting = 1


@compiled
def complete_accepts(core, number):
    """Give a listener's waiting connections to the accepts that the channel has asked for, as far as the batch goes."""
    listener = listener_at(core, number)
    while listener.accepts > 0 and listener.queued > 0:
        if core.event_count >= core.event_batch:
            core.accepts_waiting = 1
            return
        slot = listener.queue_head
        tcb, conn = tcb_at(core, slot), conn_at(core, slot)
        listener.queue_head = conn.next
        listener.queued -= 1
        tcb.flags &= ~flags.UNACCEPTED
        if tcb.state == CLOSED:
            release(core, tcb)  # it ended before anybody took it
            continue
        listener.accepts -= 1
        tcb.flags |= flags.READING
        emit(core, ACCEPT, slot, handle_of(tcb), number, listener.queued)
        counters_at(core.counters).accept_events += 1
        notify(core, tcb, 0)


@compiled
def complete_waiting_accepts(core):
    """Go on where `complete_accepts` found the batch full."""
    core.accepts_waiting = 0
    for number in range(core.listener_count):
        complete_accepts(core, number)
