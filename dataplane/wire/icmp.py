"""ICMP for IPv4: echo and errors (RFC 792), the next-hop MTU of RFC 1191."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, load16, store16
from mpserve.dataplane.wire.checksum import finish, sum_bytes

HEADER = 8
ECHO_REPLY = 0
UNREACHABLE = 3
SOURCE_QUENCH = 4
ECHO_REQUEST = 8
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12

# Codes of UNREACHABLE.
PROTOCOL_UNREACHABLE = 2
PORT_UNREACHABLE = 3
FRAGMENTATION_NEEDED = 4


@compiled
def kind(icmp):
    return load8(icmp)


@compiled
def code(icmp):
    return load8(icmp + 1)


@compiled
def next_hop_mtu(icmp):
    """Of FRAGMENTATION_NEEDED; 0 from a router older than RFC 1191."""
    return load16(icmp + 6)


@compiled
def is_error(message_kind):
    """A message that quotes the datagram which it is about."""
    if message_kind == UNREACHABLE or message_kind == SOURCE_QUENCH:
        return True
    return message_kind == TIME_EXCEEDED or message_kind == PARAMETER_PROBLEM


@compiled
def make_echo_reply(icmp, length):
    """Turn the request at `icmp` into its reply, in place."""
    store16(icmp, ECHO_REPLY << 8)
    store16(icmp + 2, 0)
    store16(icmp + 2, finish(sum_bytes(icmp, length)))
