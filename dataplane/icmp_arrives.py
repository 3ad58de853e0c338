"""ICMP in: echo requests are answered, errors about our TCP segments handed on, the rest counted (RFC 1122 section 3.2.2).

An error quotes the header of the datagram that it is about and 8 bytes more. Nothing here is ever answered but an echo request.
"""

from mpserve.dataplane import control
from mpserve.dataplane.blocks import block_address, take_block
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import BLOCK_BYTES, NO_BLOCK, counters_at, seg_at
from mpserve.dataplane.memory import copy
from mpserve.dataplane.tcp.icmp_errors import error_arrives
from mpserve.dataplane.tcp.table import flow_hash
from mpserve.dataplane.wire import ethernet, icmp, ipv4, tcp
from mpserve.dataplane.wire.checksum import sum_bytes

QUOTED_BYTES = 8  # RFC 792: what an error holds of the datagram's payload at least


@compiled
def icmp_arrives(core, frame, ip, header, total):
    counters = counters_at(core.counters)
    message, length = ip + header, total - header
    if length < icmp.HEADER or sum_bytes(message, length) != 0xFFFF:
        counters.drop_icmp_malformed += 1
        return
    kind = icmp.kind(message)
    if kind == icmp.ECHO_REQUEST:
        _answer_echo(core, frame, ip, message, length)
    elif icmp.is_error(kind):
        _error_arrives(core, frame, ip, message, length)
    else:
        counters.drop_icmp_type += 1


@compiled
def _answer_echo(core, frame, ip, message, length):
    """RFC 1122 section 3.2.2.6: an echo request gets its own data back."""
    counters = counters_at(core.counters)
    if length > min(BLOCK_BYTES, core.mtu - ipv4.HEADER):
        counters.drop_oversize += 1
        return
    if not control.control_room(core):
        return
    block = take_block(core)
    if block == NO_BLOCK:
        counters.drop_no_block += 1
        return
    copy(block_address(core, block), message, length)
    icmp.make_echo_reply(block_address(core, block), length)
    mapped = core.address & ~0xFFFFFFFF
    reply = control.owe_control(
        core, control.ECHO_REPLY, mapped | ipv4.source(ip), core.address, ethernet.source(frame)
    )
    reply.block = block
    reply.length = length
    counters.echo_replies += 1


@compiled
def _error_arrives(core, frame, ip, message, length):
    """Check what is quoted: the headers of a whole TCP segment that we have sent, by the look of it."""
    counters = counters_at(core.counters)
    quote, room = message + icmp.HEADER, length - icmp.HEADER
    if room < ipv4.HEADER + QUOTED_BYTES or ipv4.version(quote) != 4:
        counters.drop_icmp_quote += 1
        return
    header = ipv4.header_length(quote)
    if header < ipv4.HEADER or header + QUOTED_BYTES > room:
        counters.drop_icmp_quote += 1
        return
    ours = ipv4.source(quote) == core.address & 0xFFFFFFFF and not ipv4.is_fragment(quote)
    if not ours or ipv4.protocol(quote) != ipv4.PROTOCOL_TCP:
        counters.drop_icmp_quote_not_ours += 1
        return
    seg = seg_at(core.seg)
    _fill_key(core, seg, quote, quote + header)
    seg.frame, seg.datagram = frame, ip
    error_arrives(
        core, seg, icmp.kind(message), icmp.code(message), icmp.next_hop_mtu(message), ipv4.total_length(quote)
    )


@compiled
def _fill_key(core, seg, quote, segment):
    """The flow that a quoted segment of ours belongs to, and its sequence number."""
    seg.remote_high = seg.local_high = 0
    seg.remote = (core.address & ~0xFFFFFFFF) | ipv4.destination(quote)
    seg.local = core.address
    sent = tcp.ports(segment)
    seg.ports = ((sent & 0xFFFF) << 16) | (sent >> 16)
    seg.hash = flow_hash(core, seg.remote, seg.local, seg.ports)
    seg.seq = tcp.seq(segment)
