"""The Internet checksum, RFC 1071. Partial sums are of 16-bit words in network order, kept in an int64."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, native16, native32


@compiled
def fold(total):
    """A sum of any size as 16 bits; not complemented."""
    total = (total & 0xFFFFFFFF) + (total >> 32)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@compiled
def sum_bytes(address, length):
    """The partial sum of `length` bytes; an odd last byte counts as the high half of a word."""
    total = 0
    end = address + (length & -4)
    while address < end:
        total += native32(address)
        address += 4
    if length & 2:
        total += native16(address)
        address += 2
    if length & 1:
        total += load8(address)
    total = fold(total)
    return ((total & 0xFF) << 8) | (total >> 8)  # the sum of swapped words is the swapped sum


@compiled
def finish(total):
    """The value of a checksum field for a partial sum."""
    return fold(total) ^ 0xFFFF


@compiled
def pseudo_sum(source, destination, protocol, length):
    """The partial sum of the IPv4 pseudo-header (RFC 9293 section 3.1); addresses are 32-bit numbers."""
    return (source >> 16) + (source & 0xFFFF) + (destination >> 16) + (destination & 0xFFFF) + protocol + length
