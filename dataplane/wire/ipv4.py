"""IPv4 headers, RFC 791. Addresses are 32-bit numbers."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, load16, load32, store16, store32
from mpserve.dataplane.wire.checksum import finish

HEADER = 20
PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
MORE_FRAGMENTS = 0x2000
DONT_FRAGMENT = 0x4000
TTL = 64


@compiled
def version(ip):
    return load8(ip) >> 4


@compiled
def header_length(ip):
    return (load8(ip) & 15) * 4


@compiled
def total_length(ip):
    return load16(ip + 2)


@compiled
def identification(ip):
    return load16(ip + 4)


@compiled
def is_fragment(ip):
    return load16(ip + 6) & (MORE_FRAGMENTS | 0x1FFF) != 0


@compiled
def has_more_fragments(ip):
    return load16(ip + 6) & MORE_FRAGMENTS != 0


@compiled
def fragment_offset(ip):
    """In bytes."""
    return (load16(ip + 6) & 0x1FFF) * 8


@compiled
def make_whole(ip, total):
    """Turn a first fragment's header into the whole datagram's; its checksum, verified before, is left as it was."""
    store16(ip + 2, total)
    store16(ip + 6, 0)


@compiled
def protocol(ip):
    return load8(ip + 9)


@compiled
def source(ip):
    return load32(ip + 12)


@compiled
def destination(ip):
    return load32(ip + 16)


@compiled
def write(ip, protocol_number, tos, ttl, source_address, destination_address, payload_length, ip_id):
    """A header of 20 bytes with DF set, its checksum computed as arithmetic on what is written."""
    total = HEADER + payload_length
    store32(ip, 0x45000000 | (tos << 16) | total)
    store32(ip + 4, (ip_id << 16) | DONT_FRAGMENT)
    sums = 0x4500 + tos + total + (ip_id & 0xFFFF) + DONT_FRAGMENT + (ttl << 8) + protocol_number
    sums += (source_address >> 16) + (source_address & 0xFFFF)
    sums += (destination_address >> 16) + (destination_address & 0xFFFF)
    store16(ip + 8, (ttl << 8) | protocol_number)
    store16(ip + 10, finish(sums))
    store32(ip + 12, source_address)
    store32(ip + 16, destination_address)
