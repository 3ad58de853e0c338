"""SEGMENT ARRIVES, RFC 9293 section 3.10.7: find what a segment belongs to, then its checks in the RFC's order."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import CONN, conn_at, counters_at, tcb_at
from mpserve.dataplane.steering import is_steered
from mpserve.dataplane.tcp.backlog import cookie_arrives, find_listener, find_syn, syn_arrives, syn_received_arrives
from mpserve.dataplane.tcp.checks import (
    check_ack,
    check_rst,
    check_sequence,
    check_syn,
    check_timestamp,
)
from mpserve.dataplane.tcp.reset import answer_with_rst
from mpserve.dataplane.tcp.state import CLOSED, SYN_SENT
from mpserve.dataplane.tcp.syn_sent import syn_sent_arrives
from mpserve.dataplane.tcp.table import find
from mpserve.dataplane.tcp.text import check_fin, process_text
from mpserve.dataplane.tcp.timestamps import remember_timestamp
from mpserve.dataplane.tcp.timewait import find_time_wait, time_wait_arrives
from mpserve.dataplane.wire import tcp

_CONN_BYTES = CONN.itemsize


@compiled
def segment_arrives(core, seg, now):
    slot = find(core.flows, core.flow_count - 1, seg, core.conns, _CONN_BYTES)
    if slot < 0:
        slot = _without_connection(core, seg, now)
    if slot >= 0:
        tcb, conn = tcb_at(core, slot), conn_at(core, slot)
        if tcb.state != SYN_SENT:
            synchronized_arrives(core, tcb, conn, seg, now)
        elif syn_sent_arrives(core, tcb, conn, seg, now):
            _text_arrives(core, tcb, conn, seg, now)


@compiled
def synchronized_arrives(core, tcb, conn, seg, now):
    """RFC 9293 section 3.10.7.4, check by check."""
    if not check_timestamp(core, tcb, conn, seg):
        return
    if not check_sequence(core, tcb, conn, seg):
        return
    remember_timestamp(core, tcb, conn, seg)
    if not check_rst(core, tcb, conn, seg):
        return
    if not check_syn(core, tcb, seg):
        return
    if not check_ack(core, tcb, conn, seg, now):
        return
    _text_arrives(core, tcb, conn, seg, now)


@compiled
def _text_arrives(core, tcb, conn, seg, now):
    process_text(core, tcb, conn, seg, now)
    if tcb.state != CLOSED:
        check_fin(core, tcb, conn, seg, now)


@compiled
def _without_connection(core, seg, now):
    """A segment for the backlog, a TIME_WAIT, another core, a listener or nobody; the slot of a connection completed, or -1."""
    index = find_syn(core, seg)
    if index >= 0:
        slot = syn_received_arrives(core, index, seg, now)
        if slot != -2:
            return slot
        return _listen_arrives(core, seg, -1, now)
    waiting = find_time_wait(core, seg)
    if waiting >= 0 and not time_wait_arrives(core, waiting, seg):
        return -1
    if waiting < 0 and is_steered(core, seg):
        return -1
    return _listen_arrives(core, seg, waiting, now)


@compiled
def _listen_arrives(core, seg, waiting, now):
    """RFC 9293 section 3.10.7.2, and 3.10.7.1 where there is no listener; the slot of a connection completed, or -1.

    `waiting` is the TIME_WAIT entry that a SYN has just ended, or -1.
    """
    listener = find_listener(core, seg.local, seg.ports & 0xFFFF)
    if listener < 0:
        counters_at(core.counters).drop_no_listener += 1
        answer_with_rst(core, seg)
    elif seg.flags & tcp.RST:
        return -1
    elif seg.flags & tcp.ACK:
        return cookie_arrives(core, seg, listener, now)
    elif seg.flags & tcp.SYN and seg.flags & tcp.FIN == 0:
        syn_arrives(core, seg, listener, waiting, now)
    else:
        counters_at(core.counters).drop_tcp_flags += 1
    return -1
