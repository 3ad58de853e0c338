"""Options: read into SEG, written into segments. A list that lies about its lengths makes the segment malformed.

MSS (RFC 9293 section 3.7.1), window scale and timestamps (RFC 7323), SACK-permitted and SACK (RFC 2018).
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, load16, load32
from mpserve.dataplane.wire import tcp


@compiled
def parse_options(seg, at, end):
    """Read the options in [at, end) into `seg`; False if a length is impossible. Unknown options are skipped."""
    if end - at == tcp.TIMESTAMPS_BYTES and load32(at) == tcp.NOPS_TIMESTAMPS:  # what nearly every segment has
        _take_timestamps(seg, at + 2)
        return True
    while at < end:
        kind = load8(at)
        if kind == tcp.OPTION_END:
            return True
        if kind == tcp.OPTION_NOP:
            at += 1
            continue
        if at + 1 >= end:
            return False
        length = load8(at + 1)
        if length < 2 or at + length > end:
            return False
        if not _take(seg, kind, at, length):
            return False
        at += length
    return True


@compiled
def _take(seg, kind, at, length):
    if kind == tcp.OPTION_MSS:
        if length != 4:
            return False
        seg.mss = load16(at + 2)
    elif kind == tcp.OPTION_SCALE:
        if length != 3:
            return False
        seg.scale = min(load8(at + 2), tcp.MAX_SCALE)
    elif kind == tcp.OPTION_TIMESTAMPS:
        if length != 10:
            return False
        _take_timestamps(seg, at)
    elif kind == tcp.OPTION_SACK_PERMITTED:
        if length != 2:
            return False
        seg.sack_ok = 1
    elif kind == tcp.OPTION_SACK:
        if length < 10 or (length - 2) % 8 != 0:
            return False
        seg.sacks = at + 2
        seg.sack_count = (length - 2) // 8
    return True


@compiled
def _take_timestamps(seg, at):
    seg.ts_ok = 1
    seg.ts_val = load32(at + 2)
    seg.ts_ecr = load32(at + 6)


@compiled
def control_options_length(owed):
    """Bytes of the options of a CONTROL segment: those of a SYN-ACK, or timestamps alone."""
    if owed.mss == 0:
        return tcp.TIMESTAMPS_BYTES if owed.ts_ok != 0 else 0
    length = 8 if owed.scale >= 0 else 4
    if owed.ts_ok != 0:
        return length + tcp.TIMESTAMPS_BYTES
    return length + 4 if owed.sack_ok != 0 else length


@compiled
def write_control_options(at, owed):
    """MSS, SACK-permitted, timestamps, window scale, as far as they are set; their partial sum."""
    total = 0
    if owed.mss != 0:
        total = tcp.put_word(at, tcp.MSS_WORD | owed.mss)
        at += 4
    if owed.ts_ok != 0:
        first = tcp.SACK_PERMITTED_TIMESTAMPS if owed.sack_ok != 0 else tcp.NOPS_TIMESTAMPS
        total += tcp.write_timestamps(at, first, owed.ts_val, owed.ts_ecr)
        at += tcp.TIMESTAMPS_BYTES
    elif owed.sack_ok != 0:
        total += tcp.put_word(at, tcp.NOPS_SACK_PERMITTED)
        at += 4
    if owed.mss != 0 and owed.scale >= 0:
        total += tcp.put_word(at, tcp.NOP_SCALE | owed.scale)
    return total
