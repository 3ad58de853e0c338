"""Socket options and TCP_INFO as the stack's records hold them."""

from __future__ import annotations

import socket
import struct
from typing import Any

from mpserve.dataplane.core import Core
from mpserve.dataplane.tcp import flags, settings
from mpserve.dataplane.tcp.state import State
from mpserve.framework.socket_options import (
    CONTROLS,
    OF_LISTENERS,
    SOL,
    TABLE,
    TCP,
    TcpInfo,
    require_listener_option,
    unknown,
)


def read(core: Core, slot: int, level: int, name: int) -> int | bytes:
    """An option's value as `socket.getsockopt` gives it. Raises OSError (ENOPROTOOPT)."""
    tcb, conn = core.arrays["tcbs"][slot], core.arrays["conns"][slot]
    on = int(conn.settings)
    if (level, name) == (SOL, socket.SO_LINGER):
        return struct.pack("ii", int(bool(on & settings.LINGER)), int(conn.linger_ms) // 1000)
    if (level, name) == (TCP, socket.TCP_CONGESTION):
        return CONTROLS[bool(on & settings.NEWRENO)]
    if (level, name) == (SOL, socket.SO_REUSEADDR):
        return 1
    entry = TABLE.get((level, name))
    if entry is None:
        raise unknown(level, name)
    return entry.read(tcb, conn) // entry.scale


def set_of_listener(listener: Any, level: int, name: int, value: int) -> None:
    """Set an option of a listener's record. Raises OSError (ENOPROTOOPT, EINVAL)."""
    require_listener_option(level, name, value)
    if (level, name) == (TCP, socket.TCP_DEFER_ACCEPT):
        listener.defer_ms = value * 1000
    elif (level, name) in OF_LISTENERS:
        listener[OF_LISTENERS[level, name]] = value


def tcp_info(core: Core, slot: int) -> TcpInfo:
    """TCP_INFO of a connection."""
    tcb, conn = core.arrays["tcbs"][slot], core.arrays["conns"][slot]
    on = int(tcb["flags"])
    names = {"timestamps": on & flags.TIMESTAMPS, "sack": on & flags.SACK, "wscale": int(tcb.rcv_scale)}
    error = int(conn.soft_error)
    out = (int(tcb.snd_nxt) - int(tcb.snd_una)) & 0xFFFFFFFF
    return TcpInfo(
        state=State(int(tcb.state)),
        options=frozenset(name for name, there in names.items() if there),
        congestion=CONTROLS[bool(int(conn.settings) & settings.NEWRENO)].decode(),
        snd_mss=int(tcb.mss),
        snd_cwnd=int(tcb.cwnd),
        snd_ssthresh=int(tcb.ssthresh),
        snd_wnd=int(tcb.snd_wnd),
        snd_queued=int(tcb.snd_queued),
        in_flight=out - int(tcb.sacked) - int(tcb.lost),
        sacked=int(tcb.sacked),
        lost=int(tcb.lost),
        rcv_wnd=(int(tcb.rcv_adv) - int(tcb.rcv_nxt)) & 0xFFFFFFFF,
        rcv_queued=int(conn.rcv_queued),
        rtt=int(tcb.srtt_us),
        rttvar=int(tcb.rttvar_us),
        min_rtt=int(conn.min_rtt_us),
        rto=int(tcb.rto_us),
        retransmits=int(tcb.retries),
        sndbuf=int(conn.sndbuf),
        rcvbuf=int(conn.rcvbuf),
        soft_error=divmod(error, 256) if error and conn.soft_error_una == tcb.snd_una else None,
    )
