"""Socket options of a connection: their numbers, the bits that are on, and what setting one does."""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import NEVER
from mpserve.dataplane.tcp.option_numbers import DEFERRED as DEFERRED
from mpserve.dataplane.tcp.option_numbers import KEEPALIVE as KEEPALIVE
from mpserve.dataplane.tcp.option_numbers import LEAST_BUFFER as LEAST_BUFFER
from mpserve.dataplane.tcp.option_numbers import LEAST_SEGMENT as LEAST_SEGMENT
from mpserve.dataplane.tcp.option_numbers import LINGER as LINGER
from mpserve.dataplane.tcp.option_numbers import NAGLE as NAGLE
from mpserve.dataplane.tcp.option_numbers import NEWRENO as NEWRENO
from mpserve.dataplane.tcp.option_numbers import OWN_RCVBUF as OWN_RCVBUF
from mpserve.dataplane.tcp.option_numbers import OWN_SNDBUF as OWN_SNDBUF
from mpserve.dataplane.tcp.option_numbers import QUICKACK as QUICKACK
from mpserve.dataplane.tcp.option_numbers import VALUE_BITS as VALUE_BITS
from mpserve.dataplane.tcp.option_numbers import Option as Option
from mpserve.dataplane.wheel import arm
from mpserve.dataplane.wire import ipv4

_NODELAY, _QUICKACK, _CONGESTION, _KEEPALIVE = (int(o) for o in list(Option)[:4])
_KEEPIDLE, _KEEPINTVL, _KEEPCNT, _LINGER = (int(o) for o in list(Option)[4:8])
_RCVBUF, _SNDBUF, _USER_TIMEOUT, _MAXSEG = (int(o) for o in list(Option)[8:12])
_TOS, _TTL = (int(o) for o in list(Option)[12:])


@compiled
def default_settings(core, conn, now):
    """What a connection begins with: NODELAY, buffers that grow, no keepalive; two hours, 75 s and 9 if it is turned on."""
    conn.tos = 0
    conn.ttl = ipv4.TTL
    conn.settings = 0 if core.cubic != 0 else NEWRENO
    conn.rcvbuf = core.rcvbuf
    conn.sndbuf = core.sndbuf
    conn.user_timeout_ms = 0
    conn.linger_ms = 0
    conn.keep_idle_ms = 7_200_000
    conn.keep_interval_ms = 75_000
    conn.keep_count = 9
    conn.keep_probes = 0
    conn.keep_at = NEVER
    conn.progress_at = now
    conn.rcv_round_at = now


@compiled
def _switch(conn, bit, on):
    conn.settings = conn.settings | bit if on else conn.settings & ~bit


@compiled
def set_option(core, tcb, conn, argument, now):
    """Command.SET: the channel has checked option and value."""
    option = argument >> VALUE_BITS
    value = np.int64(argument << (64 - VALUE_BITS)) >> (64 - VALUE_BITS)  # with its sign
    if option == _NODELAY:
        _switch(conn, NAGLE, value == 0)
    elif option == _QUICKACK:
        _switch(conn, QUICKACK, value != 0)
    elif option == _CONGESTION:
        _switch(conn, NEWRENO, value != 0)
    elif option == _LINGER:
        _switch(conn, LINGER, value >= 0)
        conn.linger_ms = max(value, 0)
    elif option == _RCVBUF:
        _switch(conn, OWN_RCVBUF, True)
        conn.rcvbuf = min(max(value, LEAST_BUFFER), core.rcvbuf_max)
    elif option == _SNDBUF:
        _switch(conn, OWN_SNDBUF, True)
        conn.sndbuf = min(max(value, LEAST_BUFFER), core.sndbuf_max)
    elif option == _USER_TIMEOUT:
        conn.user_timeout_ms = value
    elif option == _MAXSEG:
        tcb.mss = min(tcb.mss, max(value, LEAST_SEGMENT))
    elif option == _TOS:
        conn.tos = value & 0xFC
    elif option == _TTL:
        conn.ttl = min(max(value, 1), 255)
    else:
        _set_keepalive(core, tcb, conn, option, value, now)


@compiled
def _set_keepalive(core, tcb, conn, option, value, now):
    if option == _KEEPALIVE:
        _switch(conn, KEEPALIVE, value != 0)
    elif option == _KEEPIDLE:
        conn.keep_idle_ms = value
    elif option == _KEEPINTVL:
        conn.keep_interval_ms = value
    elif option == _KEEPCNT:
        conn.keep_count = value
    heard(conn, now)
    arm(core, tcb.slot, conn.keep_at)


@compiled
def heard(conn, now):
    """A segment has come: the next keepalive probe is due an idle time from now."""
    conn.keep_probes = 0
    conn.keep_at = now + np.int64(conn.keep_idle_ms) * 1000 if conn.settings & KEEPALIVE else NEVER
