"""A connection's life: made from the backlog, listed for egress and for events, destroyed or moved to TIME_WAIT.

The only place where slots are taken and given back, and where TCBs enter and leave the flow table.
"""

from mpserve.dataplane.blocks import give_chain
from mpserve.dataplane.control import carry_ip_fields, owe_segment
from mpserve.dataplane.events import GENERATION_MASK
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import (
    NEVER,
    NO_BLOCK,
    conn_at,
    counters_at,
    free_slot_get,
    free_slot_put,
    notify_put,
    output_put,
    released_get,
    released_put,
    tcb_at,
    unresolved_get,
)
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.descriptors import NO_DESCRIPTOR, close_descriptor, open_descriptor
from mpserve.dataplane.tcp.sent import NONE, clear_sent
from mpserve.dataplane.tcp.settings import DEFERRED
from mpserve.dataplane.tcp.state import CLOSED, SYN_SENT, TIME_WAIT
from mpserve.dataplane.tcp.table import insert, remove
from mpserve.dataplane.tcp.timestamps import stamp_control
from mpserve.dataplane.tcp.timewait import enter_time_wait
from mpserve.dataplane.wheel import disarm
from mpserve.dataplane.wire.tcp import ACK, RST

FINISHED, RESET, ABORTED, TIMED_OUT, SLOW_READER, NO_MEMORY = 0, 1, 2, 3, 4, 5  # events.Reason
REFUSED, UNREACHABLE = 6, 7
INITIAL_RTO_US = 1_000_000  # RFC 6298 section 2


@compiled
def owe_output(core, tcb):
    """List the connection for egress, once."""
    if tcb.flags & flags.IN_OUTPUTS == 0:
        tcb.flags |= flags.IN_OUTPUTS
        output_put(core, core.output_count, tcb.slot)
        core.output_count += 1


@compiled
def owe_unresolved(core):
    """Try again what waited for a neighbour's MAC."""
    for i in range(core.unresolved_count):
        owe_output(core, tcb_at(core, unresolved_get(core, i)))
    core.unresolved_count = 0


@compiled
def owe_ack(core, tcb):
    tcb.flags |= flags.ACK_NOW
    owe_output(core, tcb)


@compiled
def notify(core, tcb, bits):
    """List the connection for events, once."""
    tcb.flags |= bits
    if tcb.flags & (flags.IN_NOTIFY | flags.UNACCEPTED) == 0:
        tcb.flags |= flags.IN_NOTIFY
        notify_put(core, (core.notify_head + core.notify_count) & (core.notify_rows - 1), tcb.slot)
        core.notify_count += 1


@compiled
def fin_is_acknowledged(tcb):
    """Whether nothing that was sent is unacknowledged, our FIN included."""
    return tcb.flags & flags.FIN_SENT != 0 and tcb.snd_una == tcb.snd_nxt


@compiled
def open_connection(core, key):
    """Take a slot, clear its records, enter it in the flow table; the slot, or -1 if there is none."""
    if core.free_slot_count == 0:
        return -1
    fd = open_descriptor(core)
    if fd == NO_DESCRIPTOR:
        return -1
    core.free_slot_count -= 1
    slot = free_slot_get(core, core.free_slot_count)
    conn = conn_at(core, slot)
    conn.fd = fd
    conn.remote_high, conn.remote = key.remote_high, key.remote
    conn.local_high, conn.local = key.local_high, key.local
    conn.ports, conn.hash = key.ports, key.hash
    _clear(core, tcb_at(core, slot), conn)
    insert(core.flows, core.flow_count - 1, conn.hash, slot)
    return slot


@compiled
def _clear(core, tcb, conn):
    tcb.flags &= flags.LISTED
    tcb.dup_acks = 0
    tcb.retries = 0
    tcb.rexmit_at = NEVER
    tcb.rexmit_kind = 0
    tcb.sent_head = tcb.sent_tail = NONE
    tcb.sacked = 0
    tcb.lost = 0
    tcb.srtt_us = 0
    tcb.rttvar_us = 0
    tcb.rto_us = INITIAL_RTO_US
    tcb.snd_head = NO_BLOCK
    tcb.snd_tail = NO_BLOCK
    tcb.snd_queued = 0
    tcb.ssthresh = 0x7FFFFFFF
    conn.neighbor = -1
    conn.rcv_head = NO_BLOCK
    conn.rcv_tail = NO_BLOCK
    conn.rcv_queued = 0
    conn.ooo_head = NO_BLOCK
    conn.ooo_tail = NO_BLOCK
    conn.ooo_blocks = 0
    conn.dsack_start = conn.dsack_end = 0
    conn.text_at = 0
    conn.gaps_seen = 0
    conn.lossy_at = -NEVER
    conn.undo_cwnd = 0
    conn.was_out = 0
    conn.sent_at = 0
    conn.epoch_at = 0
    conn.w_max = 0.0
    conn.w_prior = 0.0
    tcb.ts_recent = 0
    conn.delack_at = NEVER
    conn.idle_at = NEVER
    conn.idle_us = 0
    conn.state_at = NEVER
    conn.reason = FINISHED
    conn.soft_error = 0


@compiled
def _release_buffers(core, tcb, conn):
    give_chain(core, tcb.snd_head)
    give_chain(core, conn.rcv_head)
    give_chain(core, conn.ooo_head)
    clear_sent(core, tcb)
    tcb.snd_head = tcb.snd_tail = conn.rcv_head = conn.rcv_tail = NO_BLOCK
    conn.ooo_head = conn.ooo_tail = NO_BLOCK
    tcb.snd_queued = conn.rcv_queued = conn.ooo_blocks = 0


@compiled
def destroy(core, tcb, conn, reason):
    """End the connection: out of the flow table, buffers and timer given back, a CLOSED event owed."""
    if tcb.state == CLOSED:
        return
    remove(core.flows, core.flow_count - 1, conn.hash, tcb.slot)
    _release_buffers(core, tcb, conn)
    disarm(core, tcb.slot)
    tcb.state = CLOSED
    conn.reason = reason
    tcb.flags &= ~(flags.NOTIFY_EOF | flags.NOTIFY_TIMEOUT)
    _count_end(core, reason)
    if conn.settings & DEFERRED:  # the channel has never heard of it
        release(core, tcb)
    else:
        notify(core, tcb, flags.NOTIFY_CLOSED)


@compiled
def _count_end(core, reason):
    counters = counters_at(core.counters)
    if reason == FINISHED:
        counters.connections_closed += 1
    elif reason == RESET:
        counters.connections_reset += 1
    elif reason == TIMED_OUT:
        counters.connections_timed_out += 1
    else:
        counters.connections_aborted += 1


@compiled
def owe_bare(core, tcb, conn, mac, seq, flag_bits, wnd):
    """List a segment of the connection without payload, for what must leave even if the connection ends in this turn."""
    if owe_segment(core, conn, mac, seq, tcb.rcv_nxt, flag_bits, wnd):
        carry_ip_fields(core, conn)
        if tcb.flags & flags.TIMESTAMPS:
            stamp_control(core, conn, tcb.ts_recent)


@compiled
def abort(core, tcb, conn, reason):
    """RFC 9293 section 3.10.5: send a RST, but in TIME_WAIT and SYN_SENT, and forget the connection."""
    if tcb.state == CLOSED:
        return
    if tcb.state != TIME_WAIT and tcb.state != SYN_SENT:
        counters_at(core.counters).rsts_sent += 1
        owe_bare(core, tcb, conn, conn.mac, tcb.snd_nxt, RST | ACK, 0)
    destroy(core, tcb, conn, reason)


@compiled
def last_window(tcb, conn):
    """The window field once nothing more can come: that of an empty buffer."""
    return min(conn.rcvbuf >> tcb.rcv_scale, 0xFFFF)


@compiled
def finish(core, tcb, conn, state):
    """The connection has reached TIME_WAIT or CLOSED in good order. What it received and the channel has not had stays."""
    if state == TIME_WAIT:
        enter_time_wait(core, conn, tcb.snd_nxt, tcb.rcv_nxt, last_window(tcb, conn), tcb.ts_recent)
    if tcb.flags & (flags.USER_CLOSED | flags.EOF_GIVEN):
        destroy(core, tcb, conn, FINISHED)
    else:
        _keep_unread(core, tcb, conn)


@compiled
def _keep_unread(core, tcb, conn):
    """Out of the flow table now; the rest goes when the EOF event is given (`delivery` destroys)."""
    remove(core.flows, core.flow_count - 1, conn.hash, tcb.slot)
    disarm(core, tcb.slot)
    tcb.state = TIME_WAIT
    notify(core, tcb, flags.NOTIFY_EOF)


@compiled
def release(core, tcb):
    """The CLOSED event was given: the slot is free again from the next batch on, when nobody can mistake it."""
    close_descriptor(core, conn_at(core, tcb.slot).fd)
    tcb.flags = flags.GONE | (tcb.flags & flags.LISTED)
    released_put(core, core.released_count, tcb.slot)
    core.released_count += 1


@compiled
def recycle_released(core):
    """Give slots whose CLOSED event has been dispatched back, under a new generation."""
    for i in range(core.released_count):
        slot = released_get(core, i)
        tcb = tcb_at(core, slot)
        tcb.generation = (tcb.generation + 1) & GENERATION_MASK
        tcb.flags &= flags.LISTED
        free_slot_put(core, core.free_slot_count, slot)
        core.free_slot_count += 1
    core.released_count = 0
