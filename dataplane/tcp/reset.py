"""The answer to a segment that belongs to nothing here: CLOSED, RFC 9293 section 3.10.7.1."""

from mpserve.dataplane.control import owe_segment
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import counters_at
from mpserve.dataplane.tcp.seq import add
from mpserve.dataplane.wire import tcp


@compiled
def answer_with_rst(core, seg):
    """RFC 9293 section 3.10.7.1: the answer to a segment that belongs to nothing here, unless it is a RST itself."""
    if seg.flags & tcp.RST:
        return
    counters_at(core.counters).rsts_sent += 1
    if seg.flags & tcp.ACK:
        owe_segment(core, seg, seg.mac, seg.ack, 0, tcp.RST, 0)
        return
    length = seg.length + (1 if seg.flags & tcp.SYN else 0) + (1 if seg.flags & tcp.FIN else 0)
    owe_segment(core, seg, seg.mac, 0, add(seg.seq, length), tcp.RST | tcp.ACK, 0)
