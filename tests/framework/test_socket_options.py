"""Socket options by name: what reads back, what is refused. Their effects: `tests/dataplane/tcp/test_settings.py`."""

import errno
import socket
import struct

import pytest

import mpserve
from mpserve.dataplane.tcp.state import State
from mpserve.testing.host import CLIENT_MAC
from mpserve.testing.kernel_host import KernelHost
from mpserve.testing.segment import ethernet_frame, icmp_message, ipv4_packet

pytestmark = pytest.mark.on_kernel_sockets

IP, TCP, SOL = socket.IPPROTO_IP, socket.IPPROTO_TCP, socket.SOL_SOCKET


class Keep(mpserve.Handler):
    def on_start(self, worker):
        self.worker = worker

    def on_accept(self, sock):
        self.sock = sock

    def on_eof(self, sock):
        """Stays open."""


@pytest.fixture
def handler():
    return Keep()


@pytest.fixture
def sock(mpserve_host, handler):
    host = mpserve_host(handler)
    client = host.connect()
    handler.host, handler.client = host, client
    return handler.sock


@pytest.mark.parametrize(
    "level, name, default, value",
    [
        (TCP, socket.TCP_NODELAY, 1, 0),
        (TCP, socket.TCP_QUICKACK, 0, 1),
        (SOL, socket.SO_KEEPALIVE, 0, 1),
        (TCP, socket.TCP_KEEPIDLE, 7200, 60),
        (TCP, socket.TCP_KEEPINTVL, 75, 5),
        (TCP, socket.TCP_KEEPCNT, 9, 3),
        (TCP, socket.TCP_USER_TIMEOUT, 0, 30_000),
        (SOL, socket.SO_RCVBUF, 262_144, 16_384),
        (SOL, socket.SO_SNDBUF, 262_144, 16_384),
        (SOL, socket.SO_LINGER, struct.pack("ii", 0, 0), struct.pack("ii", 1, 5)),
        (TCP, socket.TCP_CONGESTION, b"cubic", b"reno"),
        (IP, socket.IP_TOS, 0, 0xB8),
        (IP, socket.IP_TTL, 64, 1),
    ],
)
def test_what_is_set_reads_back(handler, sock, level, name, default, value):
    own_defaults = isinstance(handler.host, KernelHost)  # and bounds
    assert own_defaults or sock.getsockopt(level, name) == default
    sock.setsockopt(level, name, value)
    assert sock.getsockopt(level, name) == value
    sock.setsockopt(level, name, default)
    assert own_defaults or sock.getsockopt(level, name) == default


@pytest.mark.stack_only  # Linux takes it before the connection is there, and then reads back what is
def test_a_segment_size_can_be_made_smaller_only(sock):
    sock.setsockopt(TCP, socket.TCP_MAXSEG, 1000)
    assert sock.getsockopt(TCP, socket.TCP_MAXSEG) == 1000
    sock.setsockopt(TCP, socket.TCP_MAXSEG, 1400)
    assert sock.getsockopt(TCP, socket.TCP_MAXSEG) == 1000


@pytest.mark.parametrize(
    "level, name", [(TCP, socket.TCP_CORK), (SOL, socket.SO_BROADCAST), (IP, socket.IP_OPTIONS), (TCP, 9999), (99, 1)]
)
def test_unknown_options_are_refused(sock, level, name):
    for call in (lambda: sock.setsockopt(level, name, 1), lambda: sock.getsockopt(level, name)):
        with pytest.raises(OSError) as raised:
            call()
        assert raised.value.errno == errno.ENOPROTOOPT


@pytest.mark.parametrize(
    "level, name, value",
    [
        (TCP, socket.TCP_NODELAY, 2),
        (TCP, socket.TCP_KEEPIDLE, 0),
        (TCP, socket.TCP_KEEPIDLE, 40_000),
        (TCP, socket.TCP_KEEPCNT, 128),
        (TCP, socket.TCP_USER_TIMEOUT, -1),
        (TCP, socket.TCP_MAXSEG, 10),
        (SOL, socket.SO_RCVBUF, 0),
        (SOL, socket.SO_LINGER, 1),
        (SOL, socket.SO_LINGER, struct.pack("ii", 1, -1)),
        (TCP, socket.TCP_CONGESTION, b"bbr"),
        (TCP, socket.TCP_KEEPCNT, b"3"),
        (SOL, socket.SO_REUSEADDR, 0),
        (IP, socket.IP_TOS, 0xB9),
        (IP, socket.IP_TOS, 256),
        (IP, socket.IP_TTL, 0),
    ],
)
def test_values_out_of_range_are_refused(sock, level, name, value):
    with pytest.raises(OSError) as raised:
        sock.setsockopt(level, name, value)
    assert raised.value.errno == errno.EINVAL and str(name) in str(raised.value)


def test_reuseaddr_is_always_on(sock):
    sock.setsockopt(SOL, socket.SO_REUSEADDR, 1)
    assert sock.getsockopt(SOL, socket.SO_REUSEADDR) == 1


def test_a_closed_socket_has_no_options(sock):
    sock.close()
    with pytest.raises(mpserve.Closed):
        sock.setsockopt(TCP, socket.TCP_NODELAY, 1)
    with pytest.raises(mpserve.Closed):
        sock.getsockopt(TCP, socket.TCP_NODELAY)
    with pytest.raises(mpserve.Closed):
        _ = sock.info


def test_reading_an_option_sends_nothing_twice(handler, sock):
    """It has the batch executed: what was written stays in order, and arrives once."""
    sock.write(b"one")
    sock.setsockopt(TCP, socket.TCP_NODELAY, 0)
    assert sock.getsockopt(TCP, socket.TCP_NODELAY) == 0
    sock.write(b"two")
    handler.host.settle()
    handler.host.advance(0.1)
    assert handler.client.recv() == b"onetwo"


def test_tcp_info_wherever(handler, sock):
    info = sock.info
    assert info.state == State.ESTABLISHED and info.snd_queued == 0 and info.congestion
    assert info.snd_mss > 500 and info.snd_cwnd >= info.snd_mss and info.retransmits == 0
    handler.client.send(b"x")
    handler.client.close()
    handler.host.settle()
    assert sock.info.state == State.CLOSE_WAIT


@pytest.mark.stack_only
def test_tcp_info(handler, sock):
    sock.write(b"x" * 5000)
    info = sock.info
    assert (info.state, info.snd_mss, info.congestion) == (State.ESTABLISHED, 1460, "cubic")
    assert (info.snd_queued, info.in_flight) == (5000, 0)
    assert info.snd_cwnd == 14_600 and "wscale" in info.options and "sack" not in info.options
    handler.host.settle()
    assert sock.info.snd_queued == 0


@pytest.mark.stack_only
def test_tcp_info_follows_the_connection(mpserve_host, handler):
    host = mpserve_host(handler, delay=0.01)
    client = host.connect()
    host.advance(0.1)
    sock = handler.sock
    assert sock.info.rtt == pytest.approx(20_000, abs=2000)
    sock.write(b"x" * 5000)
    host.settle()
    assert (sock.info.in_flight, sock.info.snd_queued, sock.info.soft_error) == (5000, 5000, None)
    host._wire.deliver(host_unreachable(host, client, int(handler.worker.memory.arrays["tcbs"][sock._slot].snd_una)))
    host.advance(0.015)  # on its way for 10 ms, as what was sent; that one's answer for 20
    assert sock.info.soft_error == (3, 1)
    host.advance(0.1)
    assert (sock.info.in_flight, sock.info.retransmits, sock.info.soft_error) == (0, 0, None)
    sock.pause()
    client.send(b"y" * 1000)
    host.advance(0.1)
    assert sock.info.rcv_queued == 1000
    host._clients.clear()  # the peer is gone
    sock.write(b"z")
    host.advance(0.7)
    assert sock.info.retransmits == 2 and sock.info.rto > 500_000


def host_unreachable(host, client, seq):
    """The frame of a router's message about our segment at `seq`."""
    quote = ipv4_packet(host.ip, client.local[0], 6, struct.pack("!HHI", host.port, client.local[1], seq))
    message = icmp_message(3, 1, bytes(4), quote)
    return ethernet_frame(host._wire.mac, CLIENT_MAC, 0x0800, ipv4_packet("10.9.0.1", host.ip, 1, message))


def test_options_of_a_listener(mpserve_host, handler):
    host = mpserve_host(handler)
    handler.worker.set_listener_option(("", host.port), TCP, socket.TCP_DEFER_ACCEPT, 5)
    handler.sock = None
    client = host.connect()
    assert handler.sock is None
    client.send(b"x")
    host.settle()
    assert handler.sock is not None


@pytest.mark.parametrize(
    "name, value, number",
    [
        (socket.TCP_DEFER_ACCEPT, -1, errno.EINVAL),
        (socket.TCP_MAXSEG, 1, errno.EINVAL),
        (socket.TCP_NODELAY, 1, errno.ENOPROTOOPT),
        (socket.TCP_CONGESTION, 1, errno.ENOPROTOOPT),
    ],
)
def test_options_that_a_listener_does_not_have(mpserve_host, handler, name, value, number):
    host = mpserve_host(handler)
    with pytest.raises(OSError) as raised:
        handler.worker.set_listener_option(("", host.port), TCP, name, value)
    assert raised.value.errno == number
    with pytest.raises(KeyError, match="no listener at"):
        handler.worker.set_listener_option(("", 1), TCP, name, value)
