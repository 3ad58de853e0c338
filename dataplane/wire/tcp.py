"""TCP headers, RFC 9293 section 3.1, and the options of a SYN (MSS, RFC 9293 section 3.7.1; window scale, RFC 7323)."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, load16, load32, store32

HEADER = 20
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_SCALE = 0, 1, 2, 3
MAX_SCALE = 14  # RFC 7323 section 2.3


@compiled
def ports(tcp):
    """Source port << 16 | destination port."""
    return load32(tcp)


@compiled
def seq(tcp):
    return load32(tcp + 4)


@compiled
def ack(tcp):
    return load32(tcp + 8)


@compiled
def header_length(tcp):
    return (load8(tcp + 12) >> 4) * 4


@compiled
def flags(tcp):
    return load8(tcp + 13) & 63


@compiled
def window(tcp):
    return load16(tcp + 14)


@compiled
def checksum(tcp):
    return load16(tcp + 16)


@compiled
def options_length(mss, scale):
    """Bytes of the options that `write_options` writes: 0, 4 (MSS) or 8 (MSS and window scale)."""
    if mss == 0:
        return 0
    return 8 if scale >= 0 else 4


@compiled
def write(tcp, port_pair, seq_number, ack_number, length, flag_bits, wnd):
    """A header of `length` bytes (options included), its checksum field zero; its partial sum without options."""
    store32(tcp, port_pair)
    store32(tcp + 4, seq_number)
    store32(tcp + 8, ack_number)
    word = (length << 10) | flag_bits
    store32(tcp + 12, (word << 16) | wnd)
    store32(tcp + 16, 0)
    total = ((port_pair >> 16) & 0xFFFF) + (port_pair & 0xFFFF)
    total += ((seq_number >> 16) & 0xFFFF) + (seq_number & 0xFFFF)
    total += ((ack_number >> 16) & 0xFFFF) + (ack_number & 0xFFFF)
    return total + word + wnd


@compiled
def write_options(options, mss, scale):
    """MSS, and window scale if `scale` >= 0; returns their partial sum."""
    if mss == 0:
        return 0
    store32(options, 0x02040000 | mss)
    total = 0x0204 + mss
    if scale >= 0:
        store32(options + 4, 0x01030300 | scale)
        total += 0x0103 + (0x0300 | scale)
    return total
