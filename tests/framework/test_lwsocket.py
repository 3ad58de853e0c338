"""Sockets as handlers use them: writing, back-pressure, closing, pausing; what a dead one says."""

import gc

import pytest

import mpserve
from mpserve.dataplane.events import Reason
from mpserve.framework import worker as worker_module

pytestmark = pytest.mark.on_kernel_sockets


class Keep(mpserve.Handler):
    """Keeps its sockets for the test to use; between turns, as a timer would."""

    def __init__(self):
        self.socks, self.data, self.closed, self.writable = [], bytearray(), [], 0

    def on_accept(self, sock):
        self.socks.append(sock)

    def on_data(self, sock, data):
        self.data += data

    def on_writable(self, sock):
        self.writable += 1

    def on_close(self, sock, reason):
        self.closed.append(reason)


@pytest.fixture
def pair(mpserve_host):
    handler = Keep()
    host = mpserve_host(handler)
    client = host.connect()
    return host, handler, client, handler.socks[0]


def test_names(pair):
    host, _, client, sock = pair
    assert sock.peername == client.local and sock.sockname == (host.ip, host.port) and sock.listener == ("", host.port)
    assert not sock.closed


def test_sockets_share_what_is_the_same_for_all(pair):
    """65,536 of them are held, each with no more than is its own."""
    host, handler, _, sock = pair
    host.connect()
    assert handler.socks[1]._put_word is sock._put_word and handler.socks[1]._put_payload is sock._put_payload


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_write_takes_any_bytes(pair, data):
    host, _, client, sock = pair
    assert sock.write(data) is True
    host.settle()
    assert client.recv() == b"abc"


def test_write_copies_what_may_change(pair):
    host, _, client, sock = pair
    data = bytearray(b"before")
    sock.write(data)
    data[:] = b"after!"
    host.settle()
    assert client.recv() == b"before"


@pytest.mark.parametrize("data", ["text", 7, None])
def test_write_refuses_what_is_no_bytes(pair, data):
    with pytest.raises(TypeError):
        pair[3].write(data)


def test_writev_sends_the_pieces_in_order(pair):
    host, _, client, sock = pair
    sock.writev([b"a", b"bc", b"", b"d"])
    host.settle()
    assert client.recv() == b"abcd"


def test_a_large_write_is_taken_whole_and_tells_when_it_has_drained(mpserve_host):
    handler = Keep()
    host = mpserve_host(handler, sndbuf_bytes=16_384, blocks=64)
    client = host.connect()
    data = bytes(range(256)) * 4096
    assert handler.socks[0].write(data) is False
    assert handler.socks[0].write(b"tail") is False
    handler.socks[0].close()
    host.advance(1.0)
    assert client.recv() == data + b"tail" and client.eof


def test_writable_comes_once_for_a_refused_write(mpserve_host):
    handler = Keep()
    host = mpserve_host(handler, sndbuf_bytes=16_384)
    host.connect()
    assert handler.socks[0].write(bytes(50_000)) is False
    host.advance(0.5)
    assert handler.writable == 1
    assert handler.socks[0].write(b"more") is True


def test_a_peer_that_does_not_read_is_aborted_past_the_hard_limit(mpserve_host, monkeypatch):
    monkeypatch.setattr(worker_module, "WRITE_HARD_LIMIT", 100_000)
    handler = Keep()
    host = mpserve_host(handler, sndbuf_bytes=16_384)
    client = host.connect(window=2000)
    for _ in range(20):
        if not handler.socks[0].closed:
            handler.socks[0].write(bytes(10_000))
    host.settle()
    assert client.was_reset and handler.closed == [Reason.ABORTED]
    assert host.stats["slow_readers"] == 1


def test_after_close_a_socket_raises_closed(pair):
    host, handler, client, sock = pair
    sock.write(b"last")
    sock.close()
    sock.close()
    for use in (lambda: sock.write(b"x"), sock.shutdown, sock.pause, sock.resume, lambda: sock.set_timeout(1)):
        with pytest.raises(mpserve.Closed):
            use()
    host.settle()
    assert sock.closed and client.recv() == b"last" and client.eof
    client.send(b"into the void")
    client.close()
    host.settle()
    assert handler.data == b"" and handler.closed == [Reason.FINISHED]


def test_shutdown_ends_one_direction(pair):
    host, handler, client, sock = pair
    sock.write(b"all")
    sock.shutdown()
    with pytest.raises(mpserve.Closed):
        sock.write(b"more")
    host.settle()
    assert client.recv() == b"all" and client.eof and not sock.closed
    client.send(b"still listening?")
    client.close()
    host.settle()
    assert handler.data == b"still listening?" and handler.closed == [Reason.FINISHED]


def test_abort_resets(pair):
    host, handler, client, sock = pair
    sock.write(b"lost?")
    sock.abort()
    sock.abort()
    host.settle()
    assert client.was_reset and handler.closed == [Reason.ABORTED] and sock.closed


def test_pause_holds_data_back_and_resume_brings_it(pair):
    host, handler, client, sock = pair
    sock.pause()
    host.settle()
    client.send(bytes(400_000))
    host.advance(0.2)
    assert handler.data == b""
    sock.resume()
    host.advance(2.0)
    assert handler.data == bytes(400_000)


def test_eof_waits_behind_paused_data(pair):
    host, handler, client, sock = pair
    sock.pause()
    host.settle()
    client.send(b"unread")
    client.close()
    host.settle()
    assert handler.data == b"" and not sock.closed
    sock.resume()
    host.settle()
    assert handler.data == b"unread" and handler.closed == [Reason.FINISHED]


def test_a_kept_socket_is_not_recycled_and_a_free_one_is(mpserve_host):
    class Count(mpserve.Handler):
        def __init__(self):
            self.ids, self.kept = [], []

        def on_accept(self, sock):
            self.ids.append(id(sock))
            if len(self.ids) == 1:
                self.kept.append(sock)

    handler = Count()
    host = mpserve_host(handler)
    for _ in range(3):
        client = host.connect()
        client.close()
        host.settle()
    gc.collect()
    assert handler.kept[0].closed and handler.ids[1] != handler.ids[0]
    assert handler.ids[2] == handler.ids[1]
    with pytest.raises(mpserve.Closed):
        handler.kept[0].write(b"x")


def test_writes_from_many_sockets_in_one_callback_go_out_past_one_table(mpserve_host):
    handler = Keep()
    host = mpserve_host(handler)
    clients = [host.connect() for _ in range(50)]
    for round_number in range(100):
        for sock in handler.socks:
            sock.write(b"%02d" % round_number)
    host.settle()
    expected = b"".join(b"%02d" % n for n in range(100))
    assert [c.recv() for c in clients] == [expected] * 50
