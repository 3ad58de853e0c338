"""ICMP errors about our segments (RFC 1122 section 4.2.3.9), believed as far as RFC 5927 and RFC 5461 do.

Anybody can send such a message, so a connection that is synchronized is never ended by one: it is remembered, and tells why
a connection timed out. Only a message about data in flight counts, which takes the four-tuple and a sequence number to forge.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import CONN, conn_at, counters_at, tcb_at
from mpserve.dataplane.steering import is_error_steered
from mpserve.dataplane.tcp.connection import REFUSED, destroy
from mpserve.dataplane.tcp.path_mtu import smaller_mtu_arrives
from mpserve.dataplane.tcp.seq import diff, within
from mpserve.dataplane.tcp.state import SYN_SENT
from mpserve.dataplane.tcp.table import find
from mpserve.dataplane.wire import icmp

_CONN_BYTES = CONN.itemsize


@compiled
def error_arrives(core, seg, kind, code, mtu, quoted_length):
    """An error about the segment `seg` (its key and sequence number) of `quoted_length` bytes."""
    counters = counters_at(core.counters)
    if kind == icmp.SOURCE_QUENCH:  # RFC 6633 section 3: must be ignored
        counters.icmp_source_quenches += 1
        return
    slot = find(core.flows, core.flow_count - 1, seg, core.conns, _CONN_BYTES)
    if slot < 0:
        counters.drop_icmp_no_connection += not is_error_steered(core, seg)
        return
    tcb, conn = tcb_at(core, slot), conn_at(core, slot)
    if not is_in_flight(tcb, seg.seq):
        counters.drop_icmp_sequence += 1
        return
    if kind == icmp.UNREACHABLE and code == icmp.FRAGMENTATION_NEEDED:
        smaller_mtu_arrives(core, tcb, conn, mtu, quoted_length)
        return
    counters.icmp_soft_errors += 1
    conn.soft_error = (kind << 8) | code
    conn.soft_error_una = tcb.snd_una
    hard_error_in_syn_sent(core, tcb, conn, kind, code)


@compiled
def is_in_flight(tcb, seq):
    """RFC 5927 section 4.1: snd_una <= seq < the end of what was sent."""
    return within(seq, tcb.snd_una, diff(tcb.snd_nxt, tcb.snd_una))


@compiled
def hard_error_in_syn_sent(core, tcb, conn, kind, code):
    """RFC 5461 section 4.1: nothing is lost by believing that a connection which is not made yet is refused."""
    refused = code == icmp.PROTOCOL_UNREACHABLE or code == icmp.PORT_UNREACHABLE
    if tcb.state == SYN_SENT and kind == icmp.UNREACHABLE and refused:
        counters_at(core.counters).connections_refused += 1
        destroy(core, tcb, conn, REFUSED)


@compiled
def last_soft_error(tcb, conn):
    """ICMP type << 8 | code of the last error since the peer acknowledged anything; 0: none."""
    return conn.soft_error if conn.soft_error_una == tcb.snd_una else 0
