"""A burst of frames in: Ethernet, IPv4, TCP; ARP and ICMP stand elsewhere. Changes state and lists what is owed; builds no frame.

Every length from the wire is checked here, at the door: what lies behind is handed a SEG whose payload is inside the frame.
"""

from mpserve.dataplane.fragments import fragment_arrives
from mpserve.dataplane.icmp_arrives import icmp_arrives
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import BURST, SCRATCH_BYTES, core_at, counters_at, seg_at
from mpserve.dataplane.mbuf import checksum_is_good, data_address, frame_length, gather, segments
from mpserve.dataplane.memory import call2, native64
from mpserve.dataplane.neighbor import arp_arrives
from mpserve.dataplane.recorder import record_frame
from mpserve.dataplane.shared_accepts import are_shared, take_new
from mpserve.dataplane.steering import ARP, DATAGRAM, oldest_from, record_kind, share_arp, take_off
from mpserve.dataplane.tcp.arrives import segment_arrives
from mpserve.dataplane.tcp.connection import owe_unresolved
from mpserve.dataplane.tcp.options import parse_options
from mpserve.dataplane.tcp.table import flow_hash
from mpserve.dataplane.wire import arp, ethernet, ip_options, ipv4, tcp
from mpserve.dataplane.wire.checksum import fold, pseudo_sum, sum_bytes


@unit("ingress")
def ingress(core_address, count):
    """Take in the `count` mbufs at core.rx_pkts, and give them back to the device; without any, what other cores steered here."""
    core = core_at(core_address)
    if count == 0:
        return _take_steered(core)
    counters = counters_at(core.counters)
    for i in range(count):
        mbuf = native64(core.rx_pkts + 8 * i)
        address, length = data_address(mbuf), frame_length(mbuf)
        if segments(mbuf) > 1:
            address = core.scratch
            length = gather(mbuf, address, SCRATCH_BYTES)
        counters.rx_frames += 1
        if length < 0:
            counters.drop_oversize += 1
            continue
        counters.rx_bytes += length
        if core.record != 0:
            record_frame(core, address, length)
        frame_arrives(core, address, length, checksum_is_good(mbuf))
    call2(core.free, core.rx_pkts, count)
    return count


@compiled
def _take_steered(core):
    """A burst of what the other members sent, in turn; how many frames."""
    core.steered = 1
    count = 0
    for member in range(core.members):
        while member != core.member and count < BURST:
            record = oldest_from(core, member)
            if record == 0:
                break
            _steered_arrives(core, record + 8, record_kind(record))
            take_off(core, member, record)
            count += 1
    counters_at(core.counters).steered_in += count
    if are_shared(core) and take_new(core, core.scratch) != 0:
        _steered_arrives(core, core.scratch, DATAGRAM)
        count += 1
    core.steered = 0
    return count


@compiled
def _steered_arrives(core, frame, kind):
    """What another core has checked up to the header of the protocol above."""
    packet = frame + ethernet.HEADER
    if kind == ARP:
        arp_arrives(core, frame, ethernet.HEADER + arp.LENGTH, core.now)
        owe_unresolved(core)
    else:
        datagram_arrives(core, frame, packet, ipv4.header_length(packet), ipv4.total_length(packet), True)


@compiled
def frame_arrives(core, frame, length, checksum_good):
    counters = counters_at(core.counters)
    if length < ethernet.HEADER:
        counters.drop_runt += 1
        return
    to = ethernet.destination(frame)
    if to != core.mac and not ethernet.is_group(to):
        counters.drop_not_ours += 1
        return
    if ethernet.is_group(ethernet.source(frame)):  # IEEE 802.3 section 3.2.3: no station is a group
        counters.drop_source_group += 1
        return
    kind = ethernet.ethertype(frame)
    if kind == ethernet.TYPE_IPV4:
        ipv4_arrives(core, frame, length, checksum_good)
    elif kind == ethernet.TYPE_ARP:
        if arp_arrives(core, frame, length, core.now):
            share_arp(core, frame)
        owe_unresolved(core)
    else:
        counters.drop_ethertype += 1


@compiled
def ipv4_arrives(core, frame, length, checksum_good):
    """RFC 1122 section 3.2.1: the header checks, then the protocol above."""
    counters = counters_at(core.counters)
    ip = frame + ethernet.HEADER
    room = length - ethernet.HEADER
    if room < ipv4.HEADER or ipv4.version(ip) != 4:
        counters.drop_ip_malformed += 1
        return
    header, total = ipv4.header_length(ip), ipv4.total_length(ip)
    if header < ipv4.HEADER or total < header or total > room:
        counters.drop_ip_malformed += 1
        return
    if sum_bytes(ip, header) != 0xFFFF:
        counters.drop_ip_checksum += 1
        return
    if ipv4.destination(ip) != core.address & 0xFFFFFFFF:
        counters.drop_ip_not_ours += 1
        return
    if _is_martian(core, ipv4.source(ip)) or ethernet.is_group(ethernet.destination(frame)):
        counters.drop_ip_martian += 1
        return
    if header > ipv4.HEADER and not _options_are_harmless(core, ip + ipv4.HEADER, ip + header):
        return
    if ipv4.is_fragment(ip):
        ip = fragment_arrives(core, ip, header, total)
        if ip != 0:
            datagram_arrives(core, frame, ip, ipv4.header_length(ip), ipv4.total_length(ip), False)
        return
    datagram_arrives(core, frame, ip, header, total, checksum_good)


@compiled
def datagram_arrives(core, frame, ip, header, total, checksum_good):
    """A whole datagram that is ours, for the protocol above."""
    protocol = ipv4.protocol(ip)
    if protocol == ipv4.PROTOCOL_TCP:
        tcp_arrives(core, frame, ip, header, total, checksum_good)
    elif protocol == ipv4.PROTOCOL_ICMP:
        icmp_arrives(core, frame, ip, header, total)
    else:
        counters_at(core.counters).drop_ip_protocol += 1


@compiled
def _is_martian(core, source):
    """A source that no host may have (RFC 1122 section 3.2.1.3), our own among them."""
    if source == core.address & 0xFFFFFFFF or source >> 24 == 0 or source >> 24 == 127 or source >> 28 >= 14:
        return True
    host = source & ~core.prefix_mask & 0xFFFFFFFF
    on_link = ((source ^ core.address) & core.prefix_mask) == 0
    return on_link and core.prefix_mask < 0xFFFFFFFE and host == ~core.prefix_mask & 0xFFFFFFFF


@compiled
def _options_are_harmless(core, at, end):
    """Options are skipped, but for source routes; otherwise counts the drop."""
    found = ip_options.examine(at, end)
    if found == ip_options.SOURCE_ROUTED:
        counters_at(core.counters).drop_ip_options += 1
    elif found == ip_options.MALFORMED:
        counters_at(core.counters).drop_ip_malformed += 1
    return found == ip_options.HARMLESS


@compiled
def tcp_arrives(core, frame, ip, header, total, checksum_good):
    """RFC 9293 section 3.1: the header's lengths and checksum; then SEGMENT ARRIVES."""
    counters = counters_at(core.counters)
    segment, length = ip + header, total - header
    if length < tcp.HEADER:
        counters.drop_tcp_malformed += 1
        return
    offset = tcp.header_length(segment)
    if offset < tcp.HEADER or offset > length:
        counters.drop_tcp_malformed += 1
        return
    if not checksum_good and not _checksum_holds(core, ip, segment, length):
        counters.drop_tcp_checksum += 1
        return
    if tcp.has_port_zero(segment):
        counters.drop_tcp_port_zero += 1
        return
    if tcp.is_nonsense(tcp.flags(segment)):
        counters.drop_tcp_flags += 1
        return
    seg = seg_at(core.seg)
    _fill_segment(core, seg, frame, ip, segment, length, offset)
    if offset > tcp.HEADER and not parse_options(seg, segment + tcp.HEADER, segment + offset):
        counters.drop_tcp_options += 1
        return
    segment_arrives(core, seg, core.now)


@compiled
def _fill_segment(core, seg, frame, ip, segment, length, offset):
    mapped = core.address & ~0xFFFFFFFF
    seg.remote_high = seg.local_high = 0
    seg.remote = mapped | ipv4.source(ip)
    seg.local = core.address
    ports = tcp.ports(segment)
    seg.ports = ports
    seg.hash = flow_hash(core, seg.remote, seg.local, ports)
    seg.seq = tcp.seq(segment)
    seg.ack = tcp.ack(segment)
    seg.wnd = tcp.window(segment)
    seg.flags = tcp.flags(segment)
    seg.payload = segment + offset
    seg.length = length - offset
    seg.mss = 0
    seg.scale = -1
    seg.sack_ok = 0
    seg.ts_ok = 0
    seg.sack_count = 0
    seg.mac = ethernet.source(frame)
    seg.frame = frame
    seg.datagram = ip


@compiled
def _checksum_holds(core, ip, segment, length):
    """The TCP checksum is right, or is what a local kernel leaves for hardware to finish: the pseudo-header's sum alone."""
    pseudo = pseudo_sum(ipv4.source(ip), ipv4.destination(ip), ipv4.PROTOCOL_TCP, length)
    if fold(pseudo + sum_bytes(segment, length)) == 0xFFFF:
        return True
    if core.unfinished_checksums != 0 and tcp.checksum(segment) == fold(pseudo):
        counters_at(core.counters).checksum_unfinished += 1
        return True
    return False
