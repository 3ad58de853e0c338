"""What a handler does wrong with its sockets and its callbacks: defined, counted where it is its fault, and nobody else's harm."""

import math
import socket

import pytest

import mpserve
from mpserve.dataplane.completions import Reason
from mpserve.framework.timers import MOST_TIMEOUT_US
from mpserve.framework.worker import WRITE_HARD_LIMIT

pytestmark = pytest.mark.on_kernel_sockets
GOOGOLS = 10**400  # more than any float


class Keep(mpserve.Handler):
    """Keeps its sockets for the test to misuse."""

    def __init__(self):
        self.socks, self.closed, self.timeouts = [], [], 0

    def on_start(self, worker):
        self.worker = worker

    def on_accept(self, sock):
        self.socks.append(sock)

    def on_timeout(self, sock):
        self.timeouts += 1
        sock.set_timeout(None)

    def on_close(self, sock, reason):
        self.closed.append(reason)


@pytest.fixture
def handler():
    return Keep()


@pytest.fixture
def host(mpserve_host, handler):
    return mpserve_host(handler)


@pytest.fixture
def client(host):
    return host.connect()


@pytest.fixture
def sock(client, handler):
    return handler.socks[0]


# -- after the end

ENDS = {"close": ["close"], "shutdown": ["shutdown"], "abort": ["abort"], "twice": ["close", "close", "abort"]}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("data", [b"", b"x", bytes(1 << 20)], ids=len)
def test_a_write_behind_the_end(host, client, sock, end, data):
    for name in ENDS[end]:
        getattr(sock, name)()
    for write in (sock.write, lambda data: sock.writev([data])):
        with pytest.raises(mpserve.Closed):
            write(data)
    host.settle()
    assert client.recv() == b"" and (client.eof or client.was_reset)


def test_a_socket_that_is_kept_beyond_its_end_names_nobody_else(host, handler, client, sock):
    client.reset()
    host.settle()
    other = host.connect()
    for use in (
        lambda: sock.peername,
        lambda: sock.sockname,
        lambda: sock.listener,
        lambda: sock.info,
        lambda: sock.write(b"x"),
        lambda: sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
        lambda: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        sock.to_socket,
        sock.pause,
        sock.resume,
        sock.shutdown,
    ):
        with pytest.raises(mpserve.Closed):
            use()
    sock.close()
    sock.abort()
    host.settle()
    assert sock.closed and handler.closed == [Reason.RESET] and not other.closed
    assert "closed" in repr(sock)


def test_names_are_there_until_on_close_is_over(mpserve_host):
    class Names(mpserve.Handler):
        def on_close(self, sock, reason):
            self.seen = sock.peername, sock.sockname, sock.listener
            with pytest.raises(mpserve.Closed):
                sock.write(b"too late")

    handler = Names()
    host = mpserve_host(handler)
    client = host.connect()
    client.reset()
    host.settle()
    assert handler.seen == (client.local, (host.ip, host.port), ("", host.port))
    assert host.stats["handler_errors"] == 0


# -- sizes and numbers


def test_nothing_written_is_nothing_sent(host, handler, client, sock):
    assert sock.write(b"") and sock.writev([]) and sock.writev([b"", b""])
    host.settle()
    assert client.recv() == b"" and not client.eof and not handler.closed


@pytest.mark.parametrize("length", [WRITE_HARD_LIMIT + (8 << 20), (1 << 31) + 1])
def test_a_write_of_more_than_may_wait_aborts_its_connection_alone(host, handler, client, sock, length):
    other = host.connect()
    assert sock.write(bytes(length)) is False
    handler.socks[1].write(b"unharmed")
    host.settle()
    assert client.was_reset and handler.closed == [Reason.ABORTED]
    assert other.recv() == b"unharmed" and host.stats["slow_readers"] == 1


@pytest.mark.parametrize("parts", ["text", [b"a", "b"], [b"a", 7], 5, None, b"abc"], ids=repr)
def test_writev_refuses_what_is_no_list_of_bytes(host, client, sock, parts):
    with pytest.raises(TypeError):
        sock.writev(parts)
    host.settle()
    assert client.recv() == b""


@pytest.mark.parametrize("unread", ["text", 7, None], ids=repr)
def test_to_socket_refuses_what_is_no_bytes_and_leaves_the_connection(host, client, sock, unread):
    with pytest.raises(TypeError):
        sock.to_socket(unread)
    sock.write(b"still the handler's")
    host.settle()
    assert client.recv() == b"still the handler's"


@pytest.mark.parametrize("seconds", [0, -1, -(1 << 70), math.nan, -math.inf])
def test_a_timeout_that_is_none(host, handler, client, sock, seconds):
    with pytest.raises(ValueError, match="give more than 0"):
        sock.set_timeout(seconds)
    host.advance(2.0)
    assert handler.timeouts == 0


@pytest.mark.parametrize(
    "seconds", [1e9, MOST_TIMEOUT_US / 1e6, 1 << 63, 1e300, GOOGOLS, math.inf], ids=lambda n: str(n)[:5]
)
def test_a_timeout_longer_than_the_clock_reaches(host, handler, client, sock, seconds):
    sock.set_timeout(seconds)
    host.advance(100.0)
    assert handler.timeouts == 0 and not client.closed


def test_a_timeout_of_less_than_a_microsecond_is_one(host, handler, client, sock):
    sock.set_timeout(1e-9)
    host.advance(0.05)
    assert handler.timeouts > 0


@pytest.mark.parametrize("seconds", [1e300, GOOGOLS, math.inf], ids=lambda n: str(n)[:5])
def test_a_call_far_away_disturbs_no_other(host, handler, seconds):
    called = []
    handler.worker.call_later(seconds, called.append, "never")
    handler.worker.call_later(0.1, called.append, "soon")
    handler.worker.call_later(-1e300, called.append, "at once")
    host.advance(0.5)
    assert called == ["at once", "soon"]


def test_a_call_at_no_time(host, handler):
    with pytest.raises(ValueError, match="nan seconds"):
        handler.worker.call_later(math.nan, print)


@pytest.mark.parametrize("port", [0, -1, 65_536, 1 << 31, 1 << 63, 1 << 80])
def test_ports_out_of_range(host, handler, port):
    with pytest.raises(OSError, match="ports are 1 to 65535"):
        handler.worker.connect((host.far, port))
    if port:
        with pytest.raises(OSError, match="ports are 1 to 65535"):
            handler.worker.connect((host.far, 80), source_port=port)


@pytest.mark.parametrize("value", [-1, 1 << 31, 1 << 63, 1 << 80, "7", None, 1.5, b""], ids=repr)
def test_values_that_an_option_does_not_take(client, sock, value):
    before = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
    with pytest.raises(OSError, match="socket option"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, value)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == before


@pytest.mark.parametrize("data", ["text", 7, None], ids=repr)
def test_what_is_posted_is_bytes(host, data):
    with pytest.raises(TypeError):
        host.worker.post(host.worker.core, data)


# -- cookies


@pytest.mark.parametrize("cookie", [None, 0, "text", [1], {}, math.nan, object(), lambda: 1, 1 << 80], ids=repr)
def test_cookies_of_any_type(mpserve_host, cookie):
    class Cookies(mpserve.Handler):
        def on_accept(self, sock):
            sock.cookie = cookie

        def on_data(self, sock, data):
            sock.write(b"same" if sock.cookie is cookie else b"another")

    host = mpserve_host(Cookies())
    client = host.connect()
    client.send(b"?")
    host.settle()
    assert client.recv() == b"same"


def test_a_cookie_is_gone_with_its_connection(mpserve_host):
    class Cookies(mpserve.Handler):
        def __init__(self):
            self.found = []

        def on_accept(self, sock):
            self.found.append(sock.cookie)
            sock.cookie = "mine"

    handler = Cookies()
    host = mpserve_host(handler)
    for _ in range(3):
        host.connect().reset()
        host.settle()
    assert handler.found == [None] * 3


# -- callbacks


@pytest.mark.parametrize(
    "what", [True, False, -1, 1 << 80, "close", b"bytes", [1], OSError("no"), Reason.RESET], ids=repr
)
def test_what_a_callback_returns_is_not_looked_at(mpserve_host, what):
    class Garbage(mpserve.Handler):
        def on_accept(self, sock):
            sock.set_timeout(1.0)
            return what

        def on_data(self, sock, data):
            sock.write(data)
            return what

        def on_timeout(self, sock):
            return what

        def on_eof(self, sock):
            sock.close()
            return what

        def on_close(self, sock, reason):
            return what

    host = mpserve_host(Garbage())
    client = host.connect()
    client.send(b"abc")
    host.advance(1.5)
    assert client.recv() == b"abc" and not client.eof
    client.close()
    host.settle()
    assert client.eof and not client.was_reset and host.stats["handler_errors"] == 0


@pytest.mark.parametrize("kind", ["async def", "generator", "async generator"])
@pytest.mark.parametrize("name", ["on_start", "on_data", "on_close"])
def test_a_callback_that_would_only_make_a_coroutine_is_refused(mpserve_host, kind, name):
    async def coroutine(self, *_):
        pass

    def generator(self, *_):
        yield

    async def async_generator(self, *_):
        yield

    function = {"async def": coroutine, "generator": generator, "async generator": async_generator}[kind]
    handler = type("Wrong", (mpserve.Handler,), {name: function})
    with pytest.raises(mpserve.SetupError, match=f"Wrong.{name} is (async|a generator)"):
        mpserve_host(handler())


RAISING = "on_accept on_data on_eof on_writable on_timeout on_close".split()


class Raises(mpserve.Handler):
    """Raises in one callback, for the connection that comes first."""

    def __init__(self, where):
        self.where, self.bad, self.closed = where, None, []

    def trip(self, sock, where):
        if sock is self.bad and where == self.where:
            raise RuntimeError("on purpose")

    def on_accept(self, sock):
        self.bad = self.bad or sock
        self.trip(sock, "on_accept")
        sock.set_timeout(1.0)

    def on_data(self, sock, data):
        self.trip(sock, "on_data")
        sock.write(data if data != b"much" else bytes(200_000))

    def on_eof(self, sock):
        self.trip(sock, "on_eof")
        sock.close()

    def on_writable(self, sock):
        self.trip(sock, "on_writable")

    def on_timeout(self, sock):
        self.trip(sock, "on_timeout")

    def on_close(self, sock, reason):
        self.closed.append(reason)
        self.trip(sock, "on_close")


@pytest.mark.parametrize("where", RAISING)
def test_an_exception_in_any_callback_aborts_its_connection_and_is_counted(mpserve_host, where):
    handler = Raises(where)
    host = mpserve_host(handler, sndbuf_bytes=16_384, sndbuf_max_bytes=0)
    bad, good = host.connect(), host.connect()
    bad.send(b"much")
    host.advance(1.5)
    bad.close()
    host.advance(0.1)
    assert host.stats["handler_errors"] == 1
    assert bad.was_reset == (where != "on_close")
    assert handler.closed == [Reason.FINISHED if where == "on_close" else Reason.ABORTED]
    good.send(b"still served")
    host.settle()
    assert good.recv() == b"still served"


def test_an_exception_in_a_timer_a_call_or_a_message_is_counted_and_aborts_nobody(mpserve_host):
    class Messages(Keep):
        def on_message(self, source, data):
            raise RuntimeError("on purpose")

    handler = Messages()
    host = mpserve_host(handler)
    client = host.connect()
    handler.worker.call_later(0.01, lambda: 1 / 0)
    handler.worker.call_later(0.01, None)
    handler.worker.call_soon_threadsafe(lambda: 1 / 0)
    handler.worker.post(mpserve.ALL, b"")
    host.advance(0.1)
    assert host.stats["handler_errors"] == 4
    handler.socks[0].write(b"fine")
    host.settle()
    assert client.recv() == b"fine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_no_fault_and_goes_through(mpserve_host, error):
    class Interrupted(mpserve.Handler):
        def on_data(self, sock, data):
            raise error

    host = mpserve_host(Interrupted())
    client = host.connect()
    client.send(b"x")
    with pytest.raises(error):
        host.settle()
    assert host.stats["handler_errors"] == 0


def test_who_has_no_on_data_reads_and_drops(mpserve_host):
    """The window stays open; a peer that sends for ever is let."""
    host = mpserve_host(mpserve.Handler())
    client = host.connect()
    client.send(bytes(3_000_000))
    client.close()
    host.advance(2.0)
    assert client.eof and client.closed and not client.was_reset


def test_who_never_resumes_holds_the_peer_and_little_memory(mpserve_host):
    handler = Keep()
    host = mpserve_host(handler, rcvbuf_bytes=65_536, rcvbuf_max_bytes=0)
    client = host.connect()
    handler.socks[0].pause()
    host.settle()
    client.send(bytes(3_000_000))
    host.advance(2.0)
    assert host.stats["bytes_read"] == 0 and not client.was_reset
    handler.socks[0].abort()
    host.settle()
    assert client.was_reset
