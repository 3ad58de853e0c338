"""What the worker sees and sends, kept for a pcap file: a ring of frames that Python drains between turns.

An entry is 16 bytes (time in us, length) and the frame, padded to 8; head and tail are byte counts that only grow.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import counters_at
from mpserve.dataplane.memory import copy, set_native64

HEADER = 16
WRAP = -1  # length of an entry that says: continue at the start


@compiled
def record_frame(core, frame, length):
    """Append a frame, or count it as lost when the ring is full."""
    needed = HEADER + ((length + 7) & -8)
    at = core.record_head % core.record_bytes
    to_end = core.record_bytes - at
    skip = to_end if to_end < needed + HEADER else 0
    if core.record_head + skip + needed - core.record_tail > core.record_bytes - HEADER:
        counters_at(core.counters).recorded_lost += 1
        return
    if skip > 0:
        set_native64(core.record + at + 8, WRAP)
        core.record_head += skip
        at = 0
    set_native64(core.record + at, core.now)
    set_native64(core.record + at + 8, length)
    copy(core.record + at + HEADER, frame, length)
    core.record_head += needed
