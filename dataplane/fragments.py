"""IPv4 reassembly (RFC 791 section 3.2) in a bounded table: so many datagrams, so many fragments of each, 30 seconds.

Fragments of one datagram must not overlap: a datagram in which some do is dropped whole, and so is what still comes of it
(RFC 5722 section 4, for IPv4 as well). A copy of a fragment that is there is no overlap. The first fragment of a segment
holds its TCP header, or nobody could say what it is (RFC 1858, RFC 3128). Nothing is sent when time runs out.
"""

from mpserve.dataplane.ip_records import (
    DATAGRAM_BYTES,
    DATAGRAMS,
    FRAGMENTS,
    HEADER_ROOM,
    MAX_DATAGRAM,
)
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import counters_at, datagram_at, fragment_at
from mpserve.dataplane.memory import copy, load8
from mpserve.dataplane.wire import ipv4, tcp

TIMEOUT_US = 30_000_000


@compiled
def fragment_arrives(core, ip, header, total):
    """Keep a fragment whose header is checked; the address of the datagram that it completes, or 0.

    That is the first fragment's header with the whole length, and the payload; good until the next fragment comes.
    """
    counters = counters_at(core.counters)
    counters.fragments_received += 1
    if core.reassemble == 0:
        counters.drop_ip_fragment += 1
        return 0
    protocol = ipv4.protocol(ip)
    if protocol != ipv4.PROTOCOL_TCP and protocol != ipv4.PROTOCOL_ICMP:
        counters.drop_ip_protocol += 1
        return 0
    if not _is_well_formed(ip, header, total):
        counters.drop_ip_malformed += 1
        return 0
    if protocol == ipv4.PROTOCOL_TCP and _is_tiny(ip, header, total):
        counters.drop_fragment_tiny += 1
        return 0
    index = _find_or_claim(core, ip)
    datagram = datagram_at(core, index)
    if datagram.refused != 0:
        counters.drop_fragment_overlap += 1
        return 0
    if not _keep(core, index, datagram, ip, header, total):
        return 0
    return _complete(core, index, datagram)


@compiled
def _is_well_formed(ip, header, total):
    """Only the last fragment may end off a boundary of 8 bytes, and none beyond what a datagram can be."""
    length = total - header
    if length <= 0 or header + ipv4.fragment_offset(ip) + length > MAX_DATAGRAM:
        return False
    return length & 7 == 0 or not ipv4.has_more_fragments(ip)


@compiled
def _is_tiny(ip, header, total):
    """RFC 1858 section 3.2: a first fragment without the whole TCP header, or another that holds part of one."""
    offset, length = ipv4.fragment_offset(ip), total - header
    if offset > 0:
        return offset < tcp.HEADER
    return length < tcp.HEADER or length < tcp.header_length(ip + header)


@compiled
def _find_or_claim(core, ip):
    """The place of a fragment's datagram: its own, a free one, or that of the oldest, which is dropped."""
    remote = (core.address & ~0xFFFFFFFF) | ipv4.source(ip)
    identification, protocol = ipv4.identification(ip), ipv4.protocol(ip)
    place = 0
    for i in range(DATAGRAMS):
        datagram = datagram_at(core, i)
        if datagram.started_at != 0 and core.now - datagram.started_at > TIMEOUT_US:
            _time_out(core, datagram)
        if datagram.started_at < datagram_at(core, place).started_at:
            place = i
        if datagram.started_at != 0 and datagram.remote == remote and datagram.identification == identification:
            if datagram.protocol == protocol:
                return i
    datagram = datagram_at(core, place)
    if datagram.started_at != 0 and datagram.refused == 0:
        counters_at(core.counters).drop_fragment_full += 1
    _start(core, datagram, remote, identification, protocol)
    return place


@compiled
def _time_out(core, datagram):
    datagram.started_at = 0
    if datagram.refused == 0:
        counters_at(core.counters).drop_fragment_timeout += 1


@compiled
def _start(core, datagram, remote, identification, protocol):
    datagram.remote_high = 0
    datagram.remote = remote
    datagram.identification = identification
    datagram.protocol = protocol
    datagram.started_at = core.now
    datagram.header = 0
    datagram.length = -1
    datagram.received = 0
    datagram.end = 0
    datagram.count = 0
    datagram.refused = 0


@compiled
def _payload(core, index):
    return core.datagram_data + index * DATAGRAM_BYTES + HEADER_ROOM


@compiled
def _keep(core, index, datagram, ip, header, total):
    """Put a fragment in its place. False if it is a copy, or if it ends the whole datagram."""
    start, length = ipv4.fragment_offset(ip), total - header
    end = start + length
    counters = counters_at(core.counters)
    meets = _meets(core, index, datagram, ip + header, start, end)
    if meets == _COPY:
        counters.drop_duplicate += 1
        return False
    last = not ipv4.has_more_fragments(ip)
    if meets == _OVERLAP or _contradicts(datagram, end, last):
        counters.drop_fragment_overlap += 1
        datagram.refused = 1
        return False
    if datagram.count == FRAGMENTS:
        counters.drop_fragment_full += 1
        datagram.refused = 1
        return False
    kept = fragment_at(core, index * FRAGMENTS + datagram.count)
    kept.start = start
    kept.end = end
    datagram.count += 1
    datagram.received += length
    datagram.end = max(datagram.end, end)
    if last:
        datagram.length = end
    copy(_payload(core, index) + start, ip + header, length)
    if start == 0:
        datagram.header = header
        copy(_payload(core, index) - header, ip, header)
    return True


_APART, _COPY, _OVERLAP = 0, 1, 2


@compiled
def _meets(core, index, datagram, payload, start, end):
    """How [start, end) lies to the fragments that are there."""
    for i in range(datagram.count):
        kept = fragment_at(core, index * FRAGMENTS + i)
        if start < kept.end and kept.start < end:
            same = start == kept.start and end == kept.end
            return _COPY if same and _equal(payload, _payload(core, index) + start, end - start) else _OVERLAP
    return _APART


@compiled
def _contradicts(datagram, end, last):
    """Whether a fragment lies past the datagram's end, or is a second end."""
    if datagram.length >= 0:
        return last or end > datagram.length
    return last and end < datagram.end


@compiled
def _equal(a, b, length):
    for i in range(length):
        if load8(a + i) != load8(b + i):
            return False
    return True


@compiled
def _complete(core, index, datagram):
    """Fragments do not overlap, so all have come when the bytes add up."""
    if datagram.received != datagram.length or datagram.header + datagram.length > MAX_DATAGRAM:
        return 0
    datagram.started_at = 0
    counters_at(core.counters).reassembled += 1
    ip = _payload(core, index) - datagram.header
    ipv4.make_whole(ip, datagram.header + datagram.length)
    return ip
