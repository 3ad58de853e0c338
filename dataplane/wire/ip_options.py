"""IPv4 options, RFC 791 section 3.1. None is of use to us; two are a sender's wish to steer datagrams past what filters them."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8

END, NOP = 0, 1
LOOSE_SOURCE_ROUTE, STRICT_SOURCE_ROUTE = 131, 137

HARMLESS, SOURCE_ROUTED, MALFORMED = 0, 1, 2


@compiled
def examine(at, end):
    """What the options in [at, end) come to. Source routes are to be dropped (RFC 7126 sections 4.3 and 4.4)."""
    while at < end:
        kind = load8(at)
        if kind == END:
            return HARMLESS
        if kind == NOP:
            at += 1
            continue
        if at + 1 >= end:
            return MALFORMED
        length = load8(at + 1)
        if length < 2 or at + length > end:
            return MALFORMED
        if kind == LOOSE_SOURCE_ROUTE or kind == STRICT_SOURCE_ROUTE:
            return SOURCE_ROUTED
        at += length
    return HARMLESS
