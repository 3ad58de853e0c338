"""Socket options as numbers: the bits that are on in a connection, what Command.SET sets, bounds. No numba here."""

from enum import IntEnum

# Bits of CONN.settings.
NAGLE = 1 << 0  # a short segment waits while anything is unacknowledged (RFC 9293 section 3.7.4); off: NODELAY
QUICKACK = 1 << 1  # ACKs are not delayed
NEWRENO = 1 << 2  # congestion control by RFC 5681 in place of CUBIC
KEEPALIVE = 1 << 3
LINGER = 1 << 4  # close waits linger_ms at most for its data; with 0 it resets
OWN_RCVBUF = 1 << 5  # set by hand: it doesn't grow by itself
OWN_SNDBUF = 1 << 6
DEFERRED = 1 << 7  # not offered to the channel before data arrives

VALUE_BITS = 48
LEAST_BUFFER = 2048
LEAST_SEGMENT = 64


class Option(IntEnum):
    """What Command.SET sets. Times are milliseconds."""

    NODELAY = 0
    QUICKACK = 1
    CONGESTION = 2  # 1: NewReno, 0: CUBIC
    KEEPALIVE = 3
    KEEPIDLE = 4
    KEEPINTVL = 5
    KEEPCNT = 6
    LINGER = 7  # -1: off
    RCVBUF = 8
    SNDBUF = 9
    USER_TIMEOUT = 10
    MAXSEG = 11
    TOS = 12  # of IPv4
    TTL = 13
