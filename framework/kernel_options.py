"""Socket options and TCP_INFO of the kernel's sockets, as the stack has them: the same ones, in the same units.

What the stack refuses is refused here too, so that what runs here runs there.
"""

from __future__ import annotations

import contextlib
import socket
import struct

from mpserve.dataplane.tcp.state import State
from mpserve.framework.socket_options import SOL, TABLE, TCP, TCP_CONGESTION, TcpInfo, arguments, unknown

LINGER, CONGESTION = (SOL, socket.SO_LINGER), (TCP, TCP_CONGESTION)
BUFFERS = ((SOL, socket.SO_RCVBUF), (SOL, socket.SO_SNDBUF))  # Linux answers with twice what was set
# Of Linux's struct tcp_info: eight bytes, 24 words, and behind them 64-bit fields that are not needed.
_WORDS = struct.Struct("8B24I")
_STATES = {
    1: State.ESTABLISHED,
    2: State.SYN_SENT,
    3: State.SYN_RECEIVED,
    4: State.FIN_WAIT_1,
    5: State.FIN_WAIT_2,
    6: State.TIME_WAIT,
    7: State.CLOSED,
    8: State.CLOSE_WAIT,
    9: State.LAST_ACK,
    10: State.LISTEN,
    11: State.CLOSING,
}


def write(sock: socket.socket, level: int, name: int, value: int | bytes | str) -> None:
    """Set an option. Raises OSError (ENOPROTOOPT, EINVAL), also for what the kernel has no module for."""
    arguments(level, name, value)
    plain = value.encode() if isinstance(value, str) else value
    if (level, name) == CONGESTION and isinstance(plain, bytes):
        plain = b"reno" if plain.rstrip(b"\0") == b"newreno" else plain
    sock.setsockopt(level, name, plain)


def read(sock: socket.socket, level: int, name: int) -> int | bytes:
    """An option's value. Raises OSError (ENOPROTOOPT)."""
    if (level, name) == LINGER:
        on, seconds = struct.unpack("ii", sock.getsockopt(level, name, 8))
        return struct.pack("ii", on, seconds if on else 0)
    if (level, name) == CONGESTION:
        return sock.getsockopt(level, name, 16).rstrip(b"\0")
    if (level, name) == (SOL, socket.SO_REUSEADDR):
        return 1
    if (level, name) not in TABLE:
        raise unknown(level, name)
    value = sock.getsockopt(level, name)
    return value // 2 if (level, name) in BUFFERS else value


def tcp_info(sock: socket.socket, queued: int) -> TcpInfo:
    """TCP_INFO of Linux. `queued` bytes wait outside the kernel. Raises OSError where the system has none such."""
    if not hasattr(socket, "TCP_INFO"):
        raise unknown(TCP, -1)
    fields = _WORDS.unpack_from(sock.getsockopt(TCP, socket.TCP_INFO, 256))
    words = fields[8:]
    mss, congestion = words[2], b"?"
    with contextlib.suppress(OSError):
        congestion = sock.getsockopt(*CONGESTION, 16).rstrip(b"\0")
    names = {"timestamps": 1, "sack": 2, "wscale": 4}
    return TcpInfo(
        state=_STATES[fields[0]],
        options=frozenset(name for name, bit in names.items() if fields[5] & bit),
        congestion=congestion.decode(),
        snd_mss=mss,
        snd_cwnd=words[18] * mss,
        snd_ssthresh=words[17] * mss,
        snd_wnd=0,  # in newer kernels only
        snd_queued=queued + unsent(sock),
        in_flight=max(words[4] - words[5] - words[6], 0) * mss,
        sacked=words[5] * mss,
        lost=words[6] * mss,
        rcv_wnd=0,
        rcv_queued=unread(sock),
        rtt=words[15],
        rttvar=words[16],
        min_rtt=0,
        rto=words[0],
        retransmits=fields[2],
        sndbuf=sock.getsockopt(SOL, socket.SO_SNDBUF) // 2,
        rcvbuf=sock.getsockopt(SOL, socket.SO_RCVBUF) // 2,
        soft_error=None,
    )


def unsent(sock: socket.socket) -> int:
    """Bytes written that the peer has not acknowledged."""
    import termios

    return _ask(sock, termios.TIOCOUTQ)


def unread(sock: socket.socket) -> int:
    """Bytes received that were not taken."""
    import termios

    return _ask(sock, termios.FIONREAD)


def _ask(sock: socket.socket, request: int) -> int:
    import fcntl

    number: int = struct.unpack("i", fcntl.ioctl(sock, request, bytes(4)))[0]
    return number
