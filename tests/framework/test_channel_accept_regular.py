"""`accept(handle, count, regular=True)`: connections of our stack as Python sockets, in virtual time."""

import errno
import os
import resource
import select
import socket

import pytest
from channel_fixtures import World

import mpserve
from mpserve import Channel, Kind

CANCELED = -errno.ECANCELED


def accept(world, **client):
    """A regular socket, and its connection's other end."""
    world.channel.accept(world.listener, regular=True)
    peer = world.host.connect(7, **client)
    event = world.one()
    assert (event.kind, event.handle, event.cookie, event.result) == (Kind.ACCEPT, world.listener, "listener", 0)
    event.endpoint.setblocking(False)
    return event.endpoint, peer


@pytest.fixture
def pair(world):
    regular, peer = accept(world)
    with regular:
        yield regular, peer


def pass_time(world, seconds=0.1):
    assert world.all() == []
    world.host.advance(seconds)
    assert world.all() == []


def test_it_is_a_socket_with_names(world, pair):
    regular, peer = pair
    assert isinstance(regular, socket.socket) and regular.family == socket.AF_UNIX and regular.fileno() >= 0
    assert regular.peername == peer.local and regular.sockname == ("10.9.0.2", 7)
    with regular.dup() as copy:
        assert copy.peername is None


def test_bytes_go_both_ways(world, pair):
    regular, peer = pair
    peer.send(b"question")
    pass_time(world)
    assert select.select([regular], [regular], [], 0) == ([regular], [regular], [])
    assert regular.recv(100) == b"question"
    regular.send(b"answer")
    pass_time(world)
    assert peer.recv() == b"answer"


def test_what_came_before_it_was_asked_for(world):
    peer = world.host.connect(7)
    peer.send(b"early")
    pass_time(world)
    world.channel.accept(world.listener, regular=True)
    with world.one().endpoint as regular:
        pass_time(world)
        assert regular.recv(100) == b"early"


def test_ends_of_both_sides(world, pair):
    regular, peer = pair
    peer.send(b"last")
    peer.close()
    pass_time(world)
    assert regular.recv(100) == b"last" and regular.recv(100) == b""
    regular.send(b"reply")
    regular.close()
    pass_time(world)
    assert peer.recv() == b"reply" and peer.eof
    assert not world.host.worker.endpoints


def test_a_reset(world, pair):
    regular, peer = pair
    peer.reset()
    pass_time(world)
    assert regular.recv(1) == b""
    with pytest.raises(BrokenPipeError):
        regular.send(b"x")


def test_each_accept_gets_its_kind_in_order(world):
    world.channel.accept(world.listener, 2)
    world.channel.accept(world.listener, 2, regular=True)
    world.channel.accept(world.listener)
    for _ in range(5):
        world.host.connect(7)
    endpoints = [event.endpoint for event in world.all(0.1)]
    assert [isinstance(endpoint, socket.socket) for endpoint in endpoints] == [False, False, True, True, False]
    for endpoint in endpoints:
        endpoint.close()


def test_it_registers_as_any_descriptor(world):
    regular, peer = accept(world)
    handle = world.channel.register(regular, "regular")
    world.channel.read(handle, 100)
    peer.send(b"abc")
    event = world.one()
    assert (event.kind, event.cookie, event.data) == (Kind.READ, "regular", b"abc")
    world.channel.write(handle, b"def")
    assert world.one().result == 3
    world.channel.close(handle)
    pass_time(world)
    assert peer.recv() == b"def" and peer.eof


def test_a_close_of_the_listener(world):
    """What is asked for is cancelled; what was given goes on."""
    regular, peer = accept(world)
    world.channel.accept(world.listener, 3, regular=True)
    world.channel.close(world.listener)
    assert [(event.kind, event.result) for event in world.all()] == [(Kind.ACCEPT, CANCELED)]
    peer.send(b"still here")
    pass_time(world)
    assert regular.recv(100) == b"still here"
    regular.close()


def test_sockets_that_nobody_has_seen_are_closed_with_their_listener(world):
    world.channel.accept(world.listener, 5, regular=True)
    world.channel.flush()
    peer = world.host.connect(7)
    assert not peer.eof
    world.channel.unregister(world.listener)
    pass_time(world)
    assert peer.eof


def test_without_descriptors(world):
    """As a kernel listener's: the ACCEPT fails, and the next may do better."""
    world.channel.accept(world.listener, 2, regular=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0), hard))  # the next number is beyond it
    try:
        refused = world.host.connect(7)
        (event,) = world.all(0.1)
    finally:
        os.close(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (event.kind, event.result, event.endpoint) == (Kind.ACCEPT, -errno.EMFILE, None)
    world.host.advance(0.1)
    assert refused.was_reset
    peer = world.host.connect(7)
    with world.one().endpoint as regular:
        regular.send(b"welcome")
        pass_time(world)
        assert peer.recv() == b"welcome"


def test_they_end_with_the_stack():
    world = World()
    regular, peer = accept(world)
    peer.send(b"last words")
    pass_time(world)
    world.host.stop()
    assert regular.recv(100) == b"last words" and regular.recv(100) == b""
    regular.close()


class Other(mpserve.Handler):
    """A handler beside which a channel is."""

    def __init__(self):
        self.seen = []

    def on_accept(self, sock):
        self.seen.append("accept")

    def on_data(self, sock, data):
        self.seen.append(data)

    def on_close(self, sock, reason):
        self.seen.append(reason)


def test_beside_a_handler_that_hears_nothing_of_it(mpserve_host):
    handler = Other()
    host = mpserve_host(handler, port=9)
    events = []
    channel = Channel(host.worker, on_completions=lambda channel: events.extend(channel.dispatch()))
    channel.accept(channel.register(channel.listen(("", 7))), regular=True)
    host.settle()
    peer = host.connect(7)
    (event,) = events
    regular = event.endpoint
    channel.destroy()
    peer.send(b"the channel is gone, and I am not")
    host.settle()
    assert regular.recv(100) == b"the channel is gone, and I am not"
    regular.close()
    peer.close()
    host.settle()
    assert handler.seen == [] and host.stats["handler_errors"] == 0 and not host.worker.endpoints
