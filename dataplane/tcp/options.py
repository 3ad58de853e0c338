"""Reads a segment's options into SEG. A list that lies about its lengths makes the segment malformed."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, load16
from mpserve.dataplane.wire import tcp


@compiled
def parse_options(seg, at, end):
    """Read the options in [at, end) into `seg`; False if a length is impossible. Unknown options are skipped."""
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
    return True
