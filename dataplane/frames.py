"""Frames out: mbufs taken from the pool, filled in, queued for the device. The only place where frames are built."""

from mpserve.dataplane import control
from mpserve.dataplane.blocks import block_address, give_block
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import BURST, NO_BLOCK, TX_ROWS, control_at, counters_at, tx_get, tx_put
from mpserve.dataplane.mbuf import data_address, set_frame_length
from mpserve.dataplane.memory import call3, call4, copy, native64, store16
from mpserve.dataplane.recorder import record_frame
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.options import control_options_length, write_control_options
from mpserve.dataplane.tcp.sack import has_report, write_sack_option
from mpserve.dataplane.tcp.sendbuf import copy_out
from mpserve.dataplane.tcp.timestamps import timestamp
from mpserve.dataplane.wire import arp, ethernet, ipv4, tcp
from mpserve.dataplane.wire.checksum import finish, pseudo_sum

_TCP_AT = ethernet.HEADER + ipv4.HEADER
_OPTIONS_AT = _TCP_AT + tcp.HEADER
_MOST_OPTIONS = 40


@compiled
def take_mbuf(core):
    """An empty mbuf of the device's pool, or 0 (counted). They are fetched a burst at a time."""
    if core.tx_count >= TX_ROWS:
        return 0
    if core.spare_count == 0:
        if call3(core.alloc, core.pool, core.spare_pkts, BURST) != 0:
            counters_at(core.counters).mbuf_shortage += 1
            return 0
        core.spare_count = BURST
    core.spare_count -= 1
    return native64(core.spare_pkts + 8 * core.spare_count)


@compiled
def queue_frame(core, mbuf, frame, length):
    set_frame_length(mbuf, length)
    tx_put(core, core.tx_count, mbuf)
    core.tx_count += 1
    counters = counters_at(core.counters)
    counters.tx_frames += 1
    counters.tx_bytes += length
    if core.record != 0:
        record_frame(core, frame, length)


@compiled
def flush(core):
    """Hand the queued frames to the device. What it doesn't take stays queued for the next turn."""
    if core.tx_count == 0:
        return
    sent = call4(core.tx, core.port, core.queue, core.tx_pkts, core.tx_count)
    left = core.tx_count - sent
    if left > 0:
        counters_at(core.counters).tx_retried += left
        for i in range(left):
            tx_put(core, i, tx_get(core, sent + i))
    core.tx_count = left


@compiled
def _ports_out(ports):
    """A KEY's ports (remote, local) as an outgoing header has them."""
    return ((ports & 0xFFFF) << 16) | (ports >> 16)


@compiled
def _write_headers(core, frame, key, mac, payload_length):
    """Ethernet and IPv4; the partial sum of the pseudo-header."""
    local, remote = key.local & 0xFFFFFFFF, key.remote & 0xFFFFFFFF
    core.ip_id = (core.ip_id + 1) & 0xFFFF
    ethernet.write(frame, mac, core.mac, ethernet.TYPE_IPV4)
    ipv4.write(frame + ethernet.HEADER, ipv4.PROTOCOL_TCP, key.tos, key.ttl, local, remote, payload_length, core.ip_id)
    return pseudo_sum(local, remote, ipv4.PROTOCOL_TCP, payload_length)


@compiled
def _write_segment_options(core, tcb, conn, at, length):
    """Timestamps, and on a segment without payload what was received out of order; (their length, partial sum)."""
    used, total = 0, 0
    if tcb.flags & flags.TIMESTAMPS:
        total += tcp.write_timestamps(at, tcp.NOPS_TIMESTAMPS, timestamp(core, conn), tcb.ts_recent)
        used = tcp.TIMESTAMPS_BYTES
    if length == 0 and tcb.flags & flags.SACK and has_report(conn):
        more, more_total = write_sack_option(core, conn, at + used, _MOST_OPTIONS - used)
        return used + more, total + more_total
    return used, total


@compiled
def send_segment(core, tcb, conn, mac, seq, ack, flag_bits, wnd, block, position, length):
    """Build and queue one segment with `length` bytes from a place in the send buffer. (sent, block, position) after it."""
    mbuf = take_mbuf(core)
    if mbuf == 0:
        return False, block, position
    frame = data_address(mbuf)
    options, total = _write_segment_options(core, tcb, conn, frame + _OPTIONS_AT, length)
    header = tcp.HEADER + options
    total += _write_headers(core, frame, conn, mac, header + length)
    total += tcp.write(frame + _TCP_AT, _ports_out(conn.ports), seq, ack, header, flag_bits, wnd)
    if length > 0:
        payload_sum, block, position = copy_out(core, block, position, frame + _TCP_AT + header, length)
        total += payload_sum
    store16(frame + _TCP_AT + 16, finish(total))
    queue_frame(core, mbuf, frame, _TCP_AT + header + length)
    return True, block, position


@compiled
def send_control(core, index):
    """Build and queue a listed control frame; False if there was no mbuf for it."""
    owed = control_at(core, index)
    mbuf = take_mbuf(core)
    if mbuf == 0:
        if owed.kind == control.ECHO_REPLY:
            give_block(core, owed.block)
        return False
    frame = data_address(mbuf)
    if owed.kind == control.SEGMENT:
        length = _control_segment(core, frame, owed)
    elif owed.kind == control.ECHO_REPLY:
        length = _echo_reply(core, frame, owed)
    else:
        length = _arp(core, frame, owed)
    queue_frame(core, mbuf, frame, length)
    return True


@compiled
def _control_segment(core, frame, owed):
    header = tcp.HEADER + control_options_length(owed)
    total = _write_headers(core, frame, owed, owed.mac, header)
    segment = frame + _TCP_AT
    total += tcp.write(segment, _ports_out(owed.ports), owed.seq, owed.ack, header, owed.flags, owed.wnd)
    total += write_control_options(segment + tcp.HEADER, owed)
    store16(segment + 16, finish(total))
    return _TCP_AT + header


@compiled
def _echo_reply(core, frame, owed):
    local, remote = owed.local & 0xFFFFFFFF, owed.remote & 0xFFFFFFFF
    core.ip_id = (core.ip_id + 1) & 0xFFFF
    ethernet.write(frame, owed.mac, core.mac, ethernet.TYPE_IPV4)
    ipv4.write(frame + ethernet.HEADER, ipv4.PROTOCOL_ICMP, owed.tos, owed.ttl, local, remote, owed.length, core.ip_id)
    copy(frame + _TCP_AT, block_address(core, owed.block), owed.length)
    give_block(core, owed.block)
    owed.block = NO_BLOCK
    return _TCP_AT + owed.length


@compiled
def _arp(core, frame, owed):
    what = arp.REQUEST if owed.kind == control.ARP_REQUEST else arp.REPLY
    target = 0 if what == arp.REQUEST else owed.mac
    ethernet.write(frame, owed.mac, core.mac, ethernet.TYPE_ARP)
    arp.write(frame + ethernet.HEADER, what, core.mac, core.address & 0xFFFFFFFF, target, owed.remote & 0xFFFFFFFF)
    return ethernet.HEADER + arp.LENGTH
