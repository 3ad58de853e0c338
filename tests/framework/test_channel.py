"""`mpserve.Channel`: what each method does, in virtual time."""

import errno
import socket

import pytest

import mpserve
from mpserve import Kind
from mpserve.framework.endpoints import KEPT_BYTES

CANCELED = -errno.ECANCELED


def results(events, kind=None):
    return [event.result for event in events if kind is None or event.kind == kind]


# -- accept


def test_each_connection_asked_for_completes_with_how_many_more_wait(world):
    for _ in range(3):
        world.host.connect(7)
    world.channel.accept(world.listener, 2)
    events = world.all()
    assert [(e.kind, e.handle, e.cookie, e.waiting) for e in events] == [
        (Kind.ACCEPT, world.listener, "listener", 2),
        (Kind.ACCEPT, world.listener, "listener", 1),
    ]
    assert len({e.endpoint.peername for e in events}) == 2 and events[0].endpoint.sockname == ("10.9.0.2", 7)
    assert world.all() == [], "one was not asked for"
    world.channel.accept(world.listener, 5)
    assert world.one().waiting == 0
    world.host.connect(7)
    assert len(world.all()) == 1


def test_the_cookie_is_given_at_registration(world):
    cookie = object()
    handle, peer = world.connect(cookie=cookie)
    world.channel.read(handle, 10)
    peer.send(b"x")
    event = world.one()
    assert event.cookie is cookie and event.handle == handle


@pytest.mark.parametrize("cookie", [None, 0, "text", [1], {}, float("nan"), lambda: 1], ids=repr)
def test_cookies_of_any_type(world, cookie):
    handle, peer = world.connect(cookie=cookie)
    world.channel.write(handle, b"x")
    assert world.one().cookie is cookie


def test_what_came_before_the_registration_is_not_lost(world):
    world.channel.accept(world.listener)
    peer = world.host.connect(7)
    peer.send(b"early")
    (event,) = world.all()
    world.host.advance(0.1)
    handle = world.channel.register(event.endpoint)
    world.channel.read(handle, 100)
    assert world.one().data == b"early"


def test_an_endpoint_that_is_not_wanted_is_closed(world):
    world.channel.accept(world.listener)
    peer = world.host.connect(7)
    world.one().endpoint.close()
    world.all(0.1)
    assert peer.eof


# -- read


def test_a_read_completes_once_with_what_there_is(world):
    handle, peer = world.connect()
    world.channel.read(handle, 100)
    assert world.all() == []
    peer.send(b"abc")
    event = world.one()
    assert event == (Kind.READ, handle, "c", 3, b"abc", None, 0)
    peer.send(b"def")
    assert world.all(0.1) == [], "nobody asked"
    world.channel.read(handle, 100)
    assert world.one().data == b"def"


def test_reads_are_served_in_order_and_to_size(world):
    handle, peer = world.connect()
    for size in (2, 3, 4, 100):
        world.channel.read(handle, size)
    peer.send(b"aabbbccccdd")
    assert [event.data for event in world.all(0.1)] == [b"aa", b"bbb", b"cccc", b"dd"]


def test_unread_pieces_come_together(world):
    handle, peer = world.connect()
    for piece in (b"a", b"bc", b"def"):
        peer.send(piece)
        world.all(0.01)
    world.channel.read(handle, 5)
    assert world.one().data == b"abcde"
    world.channel.read(handle, 5)
    assert world.one().data == b"f"


def test_the_end_of_the_stream(world):
    handle, peer = world.connect()
    peer.send(b"last")
    peer.close()
    for _ in range(3):
        world.channel.read(handle, 100)
    world.host.advance(0.1)
    events = world.all()
    assert [(e.result, e.data) for e in events] == [(4, b"last"), (0, b""), (0, b"")]
    world.channel.read(handle, 100)
    assert world.one().result == 0


def test_a_reset(world):
    handle, peer = world.connect()
    peer.send(b"last")
    world.all(0.01)
    peer.reset()
    world.all(0.01)
    for _ in range(3):
        world.channel.read(handle, 100)
    world.channel.write(handle, b"x")
    assert results(world.all()) == [4, -errno.ECONNRESET, -errno.ECONNRESET, -errno.ECONNRESET]
    world.channel.close(handle)
    assert world.all(0.1) == []


def test_reads_that_wait_learn_of_the_reset(world):
    handle, peer = world.connect()
    world.channel.read(handle, 1)
    world.channel.read(handle, 1)
    world.all()
    peer.reset()
    assert results(world.all(1.0)) == [-errno.ECONNRESET] * 2


def test_a_peer_that_is_gone(make_world):
    world = make_world(retries=3)
    handle, peer = world.connect()
    peer.arrives = lambda *_: None
    world.channel.write(handle, b"anybody?")
    world.channel.read(handle, 10)
    assert world.one().kind == Kind.WRITE
    event = world.one(None)
    assert (event.kind, event.result) == (Kind.READ, -errno.ETIMEDOUT)


def test_who_does_not_read_closes_the_window(make_world):
    world = make_world(rcvbuf_bytes=16_384, rcvbuf_max_bytes=16_384)
    handle, peer = world.connect()
    data = bytes(range(256)) * 2000
    peer.send(data)
    world.all(2.0)
    taken = world.host.stats["bytes_read"]
    assert KEPT_BYTES <= taken < KEPT_BYTES + 100_000 < len(data)
    got = bytearray()
    while len(got) < len(data):
        world.channel.read(handle, 50_000)
        got += world.one(None).data
    assert got == data


# -- write


def test_a_write_completes_with_its_whole_length(world):
    handle, peer = world.connect()
    world.channel.write(handle, b"abc")
    world.channel.writev(handle, [b"de", bytearray(b"f"), memoryview(b"g")])
    world.channel.write(handle, b"")
    assert [(e.kind, e.result) for e in world.all()] == [(Kind.WRITE, 3), (Kind.WRITE, 4), (Kind.WRITE, 0)]
    world.host.settle()
    assert peer.recv() == b"abcdefg"


def test_what_is_written_is_copied(world):
    handle, peer = world.connect()
    buffer = bytearray(b"before")
    world.channel.write(handle, buffer)
    buffer[:] = b"after!"
    world.all()
    world.host.settle()
    assert peer.recv() == b"before"


def test_a_write_waits_for_the_send_buffer(make_world):
    world = make_world(sndbuf_bytes=16_384, sndbuf_max_bytes=16_384)
    handle, peer = world.connect(window=0)
    data = bytes(range(256)) * 400
    world.channel.write(handle, data)
    world.channel.write(handle, b"end")
    assert world.all(1.0) == []
    peer._window = 1 << 20
    peer._say("A", peer._nxt)
    got, events = bytearray(), []
    while len(got) < len(data) + 3:
        events += world.all(0.1)
        got += peer.recv()
    assert got == data + b"end"
    assert results(events) == [len(data), 3]


# -- connect


def test_connect(world):
    accepted = world.host.listen(80)
    handle = world.channel.connect(("10.9.0.1", 80), cookie="out")
    world.channel.write(handle, b"hello")
    events = world.all(1.0) + world.all(0.1)
    assert [(e.kind, e.result, e.cookie) for e in events] == [(Kind.CONNECT, 0, "out"), (Kind.WRITE, 5, "out")]
    world.host.settle()
    assert accepted[0].recv() == b"hello"
    accepted[0].send(b"there")
    world.channel.read(handle, 10)
    assert world.one().data == b"there"


def test_a_refused_connect_fails_everything_behind_it(world):
    world.host.listen(80, accept=False)
    handle = world.channel.connect(("10.9.0.1", 80))
    world.channel.read(handle, 10)
    world.channel.write(handle, b"x")
    events = world.all(1.0)
    assert [e.kind for e in events] == [Kind.CONNECT, Kind.READ, Kind.WRITE]
    assert results(events) == [-errno.ECONNREFUSED] * 3
    world.channel.close(handle)


def test_a_connect_that_cannot_begin(world):
    with pytest.raises(OSError, match="no route"):
        world.channel.connect(("10.8.0.1", 80))


def test_a_connect_that_is_closed_before_it_is_there(world):
    world.host.listen(80)
    handle = world.channel.connect(("10.9.0.1", 80))
    world.channel.write(handle, b"x")
    world.channel.close(handle)
    assert [(e.kind, e.result) for e in world.all()] == [(Kind.CONNECT, CANCELED), (Kind.WRITE, CANCELED)]
    assert world.all(2.0) == []


# -- disconnect, close, unregister


def test_disconnect_ends_the_stream_and_keeps_the_handle(world):
    handle, peer = world.connect()
    world.channel.write(handle, b"bye")
    world.channel.disconnect(handle)
    assert [(e.kind, e.result) for e in world.all()] == [(Kind.WRITE, 3), (Kind.DISCONNECT, 0)]
    world.host.settle()
    assert peer.recv() == b"bye" and peer.eof
    peer.send(b"still")
    world.channel.read(handle, 10)
    assert world.one().data == b"still"
    with pytest.raises(mpserve.Closed, match="disconnected"):
        world.channel.write(handle, b"x")


def test_close_sends_what_was_written(make_world):
    world = make_world(sndbuf_bytes=16_384, sndbuf_max_bytes=16_384)
    handle, peer = world.connect()
    data = bytes(200_000)
    world.channel.write(handle, data)
    world.channel.close(handle)
    events = world.all(1.0)
    world.host.advance(0.2)
    assert results(events + world.all()) == [200_000]
    assert peer.recv() == data and peer.eof


def test_close_cancels_reads(world):
    handle, peer = world.connect()
    world.channel.read(handle, 10)
    world.channel.read(handle, 10)
    world.channel.write(handle, b"x")
    world.channel.close(handle)
    assert sorted((e.kind, e.result, e.handle, e.cookie) for e in world.all()) == [
        (Kind.READ, CANCELED, handle, "c"),
        (Kind.READ, CANCELED, handle, "c"),
        (Kind.WRITE, 1, handle, "c"),
    ]
    peer.send(b"late")
    assert world.all(1.0) == []


def test_close_of_a_listener_cancels_accepts_and_resets_who_waits(world):
    waiting = world.host.connect(7)
    other = world.channel.register(world.channel.listen(("", 8)))
    world.channel.accept(other, 7)
    world.channel.accept(other)
    world.channel.close(other)
    assert results(world.all(), Kind.ACCEPT) == [CANCELED, CANCELED]
    world.channel.close(world.listener)
    world.all(0.1)
    assert waiting.was_reset


def test_unregister_cancels_without_a_word(world):
    handle, peer = world.connect()
    world.channel.read(handle, 10)
    world.channel.write(handle, b"sent")
    endpoint = world.channel.unregister(handle)
    assert world.all(0.1) == []
    peer.send(b"later")
    assert world.all(0.1) == []
    again = world.channel.register(endpoint, "second")
    assert again != handle
    world.channel.read(again, 10)
    event = world.one()
    assert (event.data, event.cookie, event.handle) == (b"later", "second", again)
    assert peer.recv() == b"sent"


def test_unregister_takes_back_completions_that_wait(world):
    (one, first), (two, second) = world.connect(), world.connect()
    for handle in (one, two):
        world.channel.read(handle, 10)
    world.all()
    first.send(b"1")
    second.send(b"2")
    world.host.settle()
    world.channel.unregister(one)
    assert [e.handle for e in world.all()] == [two]


def test_what_an_undispatched_read_has_brought_is_read_again_after_unregister(world):
    handle, peer = world.connect()
    for size in (2, 3):
        world.channel.read(handle, size)
    world.channel.flush()
    peer.send(b"aabbbcc")
    world.host.advance(0.1)
    assert len(world.channel.ready) == 2
    again = world.channel.register(world.channel.unregister(handle))
    world.channel.read(again, 100)
    assert world.one().data == b"aabbbcc"


def test_an_unregistered_listener_stops_and_can_begin_again(world):
    endpoint = world.channel.unregister(world.listener)
    refused = world.host.connect(7)
    world.all(0.1)
    assert refused.was_reset
    handle = world.channel.register(endpoint, "again")
    world.channel.accept(handle)
    world.host.connect(7)
    assert world.one().cookie == "again"


@pytest.mark.parametrize("end", ["close", "unregister"])
def test_the_port_of_a_listener_that_has_just_ended_is_free(world, end):
    getattr(world.channel, end)(world.listener)
    handle = world.channel.register(world.channel.listen(("", 7)), "new")
    world.channel.accept(handle)
    world.host.connect(7)
    assert [e.cookie for e in world.all(1.0)] == ["new"]


# -- batches


def test_a_batch_waits_until_it_is_full(make_world):
    world = make_world(batch=4)
    handle, peer = world.connect()
    for _ in range(3):
        world.channel.write(handle, b"x")
    world.host.settle()
    assert peer.recv() == b""
    world.channel.write(handle, b"x")
    world.host.settle()
    assert peer.recv() == b"xxxx"


def test_batches_of_one(make_world):
    world = make_world(batch=1)
    handle, peer = world.connect()
    world.channel.write(handle, b"x")
    world.host.settle()
    assert peer.recv() == b"x"


def test_flush(world):
    handle, peer = world.connect()
    world.channel.write(handle, b"x")
    world.channel.flush()
    world.host.settle()
    assert peer.recv() == b"x"
    assert results(world.all()) == [1]


def test_no_flush_while_completions_are_pending(world):
    handle, peer = world.connect()
    for _ in range(3):
        world.channel.write(handle, b"x")
    world.channel.flush()
    world.channel.write(handle, b"later")
    assert len(world.channel.dispatch(0, max_events=2)) == 2
    assert len(world.channel.dispatch(0, max_events=2)) == 1
    world.host.settle()
    assert peer.recv() == b"xxx"
    assert results(world.channel.dispatch(0)) == [5]


# -- dispatch


def test_dispatch_waits_as_long_as_it_is_told(world):
    before = world.host.now
    assert world.all(2.5) == []
    assert 2.5 <= world.host.now - before < 2.51
    before = world.host.now
    assert world.all(0) == []
    assert world.host.now == before


@pytest.mark.parametrize("timeout", [1e-9, 1e-6, 0.001, 0.0010000001, 0.05, 1 / 3])
def test_dispatch_comes_back_whatever_the_timeout(world, timeout):
    for _ in range(50):
        before = world.host.now
        assert world.all(timeout) == []
        assert world.host.now >= before + timeout - 1e-9


def test_dispatch_without_a_timeout_waits_for_the_first(world):
    handle, peer = world.connect()
    world.channel.read(handle, 10)
    peer.tick = lambda now: peer.send(b"x") if now > 30 and not peer._unsent else None
    assert world.one(None).data == b"x"
    assert world.host.now > 30


# -- options


def test_socket_options(world):
    handle, _ = world.connect()
    channel = world.channel
    channel.setsockopt(handle, socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    assert channel.getsockopt(handle, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    channel.setsockopt(world.listener, socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
    with pytest.raises(OSError, match="not supported"):
        channel.getsockopt(handle, socket.IPPROTO_TCP, 999)
    channel.accept(world.listener)
    peer = world.host.connect(7)
    assert world.all(1.0) == []
    peer.send(b"now")
    assert world.one().kind == Kind.ACCEPT


# -- in a worker


class Both(mpserve.Handler):
    """A handler with its own connections, and a channel beside it on the same core."""

    def on_start(self, worker):
        self.events = []
        self.channel = mpserve.Channel(worker, on_completions=self.on_completions)
        self.listener = self.channel.register(self.channel.listen(("", 8)))
        self.channel.accept(self.listener, 1000)

    def on_data(self, sock, data):
        sock.write(b"handler: " + data)

    def on_completions(self, channel):
        for event in channel.dispatch():
            self.events.append(event)
            if event.kind == Kind.ACCEPT:
                channel.read(channel.register(event.endpoint), 1000)
            elif event.kind == Kind.READ and event.result > 0:
                channel.write(event.handle, b"channel: " + event.data)
                channel.read(event.handle, 1000)
            elif event.kind == Kind.READ:
                channel.close(event.handle)


def test_a_channel_beside_a_handler(mpserve_host):
    host = mpserve_host(Both())
    clients = [host.connect(7), host.connect(8), host.connect(8)]
    for client in clients:
        client.send(b"hi")
    host.settle()
    assert [client.recv() for client in clients] == [b"handler: hi", b"channel: hi", b"channel: hi"]
    clients[1].close()
    host.advance(0.1)
    assert clients[1].eof and host.stats["handler_errors"] == 0
    host.handler.channel.destroy()
    host.advance(0.1)
    assert clients[2].eof and not clients[0].eof


def test_on_completions_that_raises_hurts_nobody_else(mpserve_host):
    class Raises(Both):
        def on_completions(self, channel):
            super().on_completions(channel)
            raise RuntimeError("on purpose")

    host = mpserve_host(Raises())
    client = host.connect(8)
    client.send(b"hi")
    host.settle()
    assert client.recv() == b"channel: hi"
    assert host.stats["handler_errors"] > 0


def test_small_dispatches_in_a_worker_leave_nothing_behind(mpserve_host):
    class OneByOne(Both):
        def on_completions(self, channel):
            for event in channel.dispatch(max_events=1):
                self.events.append(event)
                if event.kind == Kind.ACCEPT:
                    channel.read(channel.register(event.endpoint), 1000)

    host = mpserve_host(OneByOne())
    clients = [host.connect(8) for _ in range(30)]
    for client in clients:
        client.send(b"x")
    host.settle()
    assert sorted(event.kind for event in host.handler.events) == [Kind.ACCEPT] * 30 + [Kind.READ] * 30


# -- the end


def test_connections_that_nobody_has_seen_are_closed_with_their_listener(world):
    world.channel.accept(world.listener)
    world.channel.flush()
    peer = world.host.connect(7)
    assert not peer.eof
    world.channel.unregister(world.listener)
    world.all(0.1)
    assert peer.eof


def test_destroy_ends_everything(make_world):
    world = make_world()
    handle, peer = world.connect()
    world.channel.read(handle, 10)
    world.channel.destroy()
    world.channel.destroy()
    world.host.advance(0.1)
    assert peer.eof
    with pytest.raises(mpserve.Closed, match="the channel was closed"):
        world.channel.dispatch(0)
