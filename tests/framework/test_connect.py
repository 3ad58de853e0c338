"""`worker.connect`: handlers that open connections themselves."""

import pytest

import mpserve
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.events import Reason

pytestmark = pytest.mark.on_kernel_sockets


class Caller(mpserve.Handler):
    """Connects when told to, and notes what happens."""

    def __init__(self):
        self.happened = []

    def on_start(self, worker):
        self.worker = worker

    def on_connect(self, sock):
        self.happened.append(("connected", sock.cookie))

    def on_data(self, sock, data):
        self.happened.append(("data", bytes(data)))

    def on_close(self, sock, reason):
        self.happened.append(("closed", reason))


@pytest.fixture
def caller():
    return Caller()


@pytest.fixture
def host(mpserve_host, caller):
    return mpserve_host(caller)


@pytest.fixture
def far(host):
    """The address of a peer, and a port that is free there."""
    return host.far, host.free_port()


def test_a_connection_and_its_answer(host, caller, far):
    (accepted,) = [host.listen(far[1])]
    sock = caller.worker.connect(far, cookie="first")
    sock.write(b"early")
    host.advance(0.1)
    assert caller.happened == [("connected", "first")]
    (server,) = accepted
    assert server.recv() == b"early"
    server.send(b"reply")
    host.settle()
    assert caller.happened[-1] == ("data", b"reply")
    assert sock.peername == far and sock.sockname[0] == host.ip and sock.listener is None
    sock.close()
    server.close()
    host.advance(0.5)
    assert caller.happened[-1] == ("closed", Reason.FINISHED)


def test_a_proxy(mpserve_host):
    """Accepted and opened connections side by side, each the other's cookie."""

    class Proxy(mpserve.Handler):
        def on_start(self, worker):
            self.worker = worker

        def on_accept(self, sock):
            sock.cookie = self.worker.connect(self.behind, cookie=sock)

        def on_data(self, sock, data):
            sock.cookie.write(data)

        def on_eof(self, sock):
            sock.cookie.close()
            sock.close()

    handler = Proxy()
    host = mpserve_host(handler)
    handler.behind = (host.far, host.free_port())
    behind = host.listen(handler.behind[1])
    client = host.connect()
    client.send(b"ping")
    host.advance(0.1)
    assert behind[0].recv() == b"ping"
    behind[0].send(b"pong" * 10_000)
    host.advance(0.5)
    assert client.recv() == b"pong" * 10_000
    client.close()
    host.advance(0.5)
    assert behind[0].eof


def test_a_refused_connection_is_closed(host, caller, far):
    host.listen(far[1], accept=False)
    caller.worker.connect(far)
    host.advance(0.1)
    assert caller.happened == [("closed", Reason.REFUSED)]


@pytest.mark.stack_only
def test_nobody_is_there(mpserve_host, caller):
    host = mpserve_host(caller, syn_retries=2)
    sock = caller.worker.connect(("10.9.0.1", 80))
    host.advance(7.1)
    assert caller.happened == [("closed", Reason.TIMED_OUT)]
    assert sock.closed


@pytest.mark.stack_only
def test_there_is_no_route(host, caller):
    with pytest.raises(OSError, match=r"connect to 10\.8\.0\.1:80: no route"):
        caller.worker.connect(("10.8.0.1", 80))


def test_what_cannot_even_begin(host, caller, far):
    host.listen(far[1])
    with pytest.raises(OSError, match="ports are 1 to 65535"):
        caller.worker.connect((far[0], 0))
    with pytest.raises(SetupError, match="not an IPv4 address"):
        caller.worker.connect(("example.com", 80))
    caller.worker.connect(far, source_port=5000)
    with pytest.raises(OSError, match="the local port is in use"):
        caller.worker.connect(far, source_port=5000)


def test_the_table_is_full(mpserve_host, caller):
    host = mpserve_host(caller, max_connections=2)
    far = (host.far, host.free_port())
    caller.worker.connect(far)
    caller.worker.connect(far)
    with pytest.raises(OSError, match="the connection table is full"):
        caller.worker.connect(far)


def test_closed_before_it_was_there(host, caller, far):
    host.listen(far[1])
    sock = caller.worker.connect(far)
    sock.close()
    host.advance(0.1)
    assert caller.happened == [("closed", Reason.ABORTED)]
