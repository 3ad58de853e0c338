"""ICMP for IPv4, RFC 792: echo only."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, store16
from mpserve.dataplane.wire.checksum import finish, sum_bytes

HEADER = 8
ECHO_REPLY = 0
ECHO_REQUEST = 8


@compiled
def kind(icmp):
    return load8(icmp)


@compiled
def make_echo_reply(icmp, length):
    """Turn the request at `icmp` into its reply, in place."""
    store16(icmp, ECHO_REPLY << 8)
    store16(icmp + 2, 0)
    store16(icmp + 2, finish(sum_bytes(icmp, length)))
