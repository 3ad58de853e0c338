"""Path MTU discovery (RFC 1191): a router that could not forward a segment of ours tells what it could have.

The message is believed at once if it is about data in flight and asks for no less than MIN_PATH_MTU. A lie costs a sender
of 1460-byte segments a factor of three in frames (RFC 5927 section 7), and no more: segments only get smaller, and do not
grow again in the life of a connection.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import counters_at, sent_at
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.connection import owe_output
from mpserve.dataplane.tcp.sent import LOST, NONE, SACKED, mark_lost
from mpserve.dataplane.wire import ipv4, tcp

MIN_PATH_MTU = (
    552  # what IPv4's default segment of 512 bytes needs: hardly any path has less, and an attacker would ask for it
)
PLATEAUS = (65535, 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)  # RFC 1191 section 7.1


@compiled
def headers_of(tcb):
    """Bytes of a segment that are not payload."""
    options = tcp.TIMESTAMPS_BYTES if tcb.flags & flags.TIMESTAMPS else 0
    return ipv4.HEADER + tcp.HEADER + options


@compiled
def next_plateau(length):
    """RFC 1191 section 5: the MTU to try for a router that does not tell its own."""
    for i in range(len(PLATEAUS)):
        if PLATEAUS[i] < length:
            return PLATEAUS[i]
    return 0


@compiled
def smaller_mtu_arrives(core, tcb, conn, mtu, quoted_length):
    """A segment in flight, of `quoted_length` bytes with its headers, was too long for the path."""
    counters = counters_at(core.counters)
    present = tcb.mss + headers_of(tcb)
    if mtu == 0:
        mtu = next_plateau(min(quoted_length, present))
    if mtu < MIN_PATH_MTU or mtu >= min(quoted_length, present):  # a segment that fits needs no fragmentation
        counters.drop_icmp_mtu += 1
        return
    counters.path_mtu_lowered += 1
    tcb.mss = mtu - headers_of(tcb)
    on_smaller_path(core, tcb)


@compiled
def on_smaller_path(core, tcb):
    """RFC 1191 section 6.4: what is in flight leaves again, in smaller segments. No sign of congestion: its window stays."""
    index = tcb.sent_head
    while index != NONE:
        record = sent_at(core, index)
        if record.marks & (SACKED | LOST) == 0:
            mark_lost(tcb, record)
        index = record.next
    tcb.recover = tcb.snd_nxt  # no recovery for what was sent before: neither these nor duplicates that they provoke
    tcb.flags |= flags.RETRANSMIT
    owe_output(core, tcb)
