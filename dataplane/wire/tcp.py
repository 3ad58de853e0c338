"""TCP headers, RFC 9293 section 3.1, and the words that options are made of."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, load16, load32, store32

HEADER = 20
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
OPTION_END, OPTION_NOP, OPTION_MSS, OPTION_SCALE, OPTION_SACK_PERMITTED, OPTION_SACK, OPTION_TIMESTAMPS = (
    0,
    1,
    2,
    3,
    4,
    5,
    8,
)
NOPS_TIMESTAMPS, SACK_PERMITTED_TIMESTAMPS = 0x0101080A, 0x0402080A  # the first words of a timestamps option
NOPS_SACK_PERMITTED, NOP_SCALE, MSS_WORD, NOPS_SACK = 0x01010402, 0x01030300, 0x02040000, 0x01010500
TIMESTAMPS_BYTES = 12
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
def is_nonsense(flag_bits):
    """Flags that no TCP sends, and scanners do: none, SYN and RST, SYN and FIN. With an ACK the last may answer a SYN of ours."""
    if flag_bits & SYN == 0:
        return flag_bits == 0
    return flag_bits & RST != 0 or flag_bits & (FIN | ACK) == FIN


@compiled
def has_port_zero(tcp):
    """Port 0 is reserved (RFC 6335 section 6)."""
    return load32(tcp) & 0xFFFF == 0 or load32(tcp) >> 16 == 0


@compiled
def window(tcp):
    return load16(tcp + 14)


@compiled
def checksum(tcp):
    return load16(tcp + 16)


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
def put_word(at, word):
    """Store 32 bits; their part of the checksum."""
    store32(at, word)
    return ((word >> 16) & 0xFFFF) + (word & 0xFFFF)


@compiled
def write_timestamps(at, first_word, value, echo):
    """A timestamps option of 12 bytes; the two before it are NOPs or another option of two bytes. Its partial sum."""
    return put_word(at, first_word) + put_word(at + 4, value) + put_word(at + 8, echo)


@compiled
def write_sack_block(at, start, end):
    """One block of a SACK option; its partial sum."""
    return put_word(at, start) + put_word(at + 4, end)
