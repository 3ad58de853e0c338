"""What a channel refuses, and how: handles that are stale or another's, sizes, masks, commands that do not fit."""

import errno
import os
import socket

import pytest

import mpserve
from mpserve.dataplane.errors import SetupError
from mpserve.framework.endpoints import KEPT_BYTES


def uses(channel):
    """Every command that takes a handle."""
    return [
        lambda handle: channel.read(handle, 1),
        lambda handle: channel.write(handle, b"x"),
        lambda handle: channel.writev(handle, [b"x"]),
        lambda handle: channel.accept(handle),
        lambda handle: channel.disconnect(handle),
        lambda handle: channel.close(handle),
        lambda handle: channel.unregister(handle),
        lambda handle: channel.setsockopt(handle, 1, 1, 1),
        lambda handle: channel.getsockopt(handle, 1, 1),
    ]


@pytest.mark.parametrize("end", ["close", "unregister"])
def test_a_stale_handle(world, end):
    handle, peer = world.connect()
    getattr(world.channel, end)(handle)
    _, other = world.connect()
    for use in uses(world.channel):
        with pytest.raises(mpserve.Closed, match="closed or unregistered"):
            use(handle)
    world.all(0.1)
    assert other.recv() == b"" and not other.eof


def test_a_handle_of_another_channel(make_world):
    one, two = make_world(), make_world()
    handle, _ = one.connect()
    _, peer = two.connect()
    for use in uses(two.channel):
        with pytest.raises(ValueError, match="no handle of this channel"):
            use(handle)
    assert not peer.eof


@pytest.mark.parametrize("offset", [1 << 16, 1 << 80, -(1 << 16)])
def test_a_handle_never_given(world, offset):
    handle, _ = world.connect()
    for use in uses(world.channel):
        with pytest.raises(ValueError, match="never given|no handle of this channel"):
            use(handle + (offset << 10))


@pytest.mark.parametrize("handle", [None, "7", 1.0, b"", True, object()], ids=repr)
def test_what_is_no_handle(world, handle):
    for use in uses(world.channel):
        with pytest.raises(TypeError, match="is no handle"):
            use(handle)


@pytest.mark.parametrize("size", [0, -1, -(1 << 70)])
def test_a_read_of_nothing(world, size):
    handle, _ = world.connect()
    with pytest.raises(ValueError, match="ask for 1 or more"):
        world.channel.read(handle, size)


def test_a_huge_read(world):
    handle, peer = world.connect()
    world.channel.read(handle, 1 << 200)
    peer.send(b"x")
    assert world.one().data == b"x"


@pytest.mark.parametrize("count", [0, -1, 1 << 31, 1 << 80])
def test_accepts_out_of_range(world, count):
    with pytest.raises(ValueError, match="ask for 1 to"):
        world.channel.accept(world.listener, count)


@pytest.mark.parametrize("data", ["text", 5, None, [1]], ids=repr)
def test_what_is_no_bytes(world, data):
    handle, _ = world.connect()
    with pytest.raises(TypeError):
        world.channel.write(handle, data)
    assert world.all() == []


def test_commands_that_do_not_fit(world):
    handle, _ = world.connect()
    with pytest.raises(ValueError, match="no listener"):
        world.channel.accept(handle)
    for use in uses(world.channel)[:2]:
        with pytest.raises(ValueError, match="is a listener"):
            use(world.listener)
    with pytest.raises(OSError, match="no offset"):
        world.channel.read(handle, 1, offset=0)


def test_cpu_masks(world):
    channel = world.channel
    here = 1 << world.host.worker.core
    assert channel.register(channel.listen(("", 100)), cpu_mask=here)
    for mask, wrong in (
        (here << 1, "without this"),
        (here | here << 1, "with a core that no"),
        (-1, "with a core that no"),
    ):
        with pytest.raises(ValueError, match=f"cpu_mask .*, {wrong}.*: give a part of 0x1 with 0x1, or 0 for 0x1"):
            channel.register(channel.listen(("", 101)), cpu_mask=mask)


def test_listeners_that_cannot_be(world):
    channel = world.channel
    with pytest.raises(ValueError, match="not an address of this stack: give 10.9.0.2"):
        channel.listen(("10.9.0.3", 7))
    for port in (0, -1, 65_536):
        with pytest.raises(ValueError, match="ports are 1 to 65535"):
            channel.listen(("", port))
    with pytest.raises(OSError, match="a listener for :7 already"):
        channel.register(channel.listen(("", 7)))
    with pytest.raises(OSError, match="64 listeners"):
        for port in range(1000, 1100):
            channel.register(channel.listen(("", port)))


def test_endpoints_that_cannot_be_registered(world, make_world):
    channel = world.channel
    channel.accept(world.listener)
    world.host.connect(7)
    connection = world.one().endpoint
    channel.register(connection)
    with pytest.raises(ValueError, match="registered already"):
        channel.register(connection)
    connection.close()
    with pytest.raises(mpserve.Closed, match="was closed"):
        channel.register(connection)
    with pytest.raises(ValueError, match="another channel"):
        make_world().channel.register(channel.listen(("", 9)))
    for thing in ("7", None, 1.5, True):
        with pytest.raises(TypeError, match="is no endpoint"):
            channel.register(thing)


def test_descriptors_that_cannot_be_registered(world, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        world.channel.register(reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        world.channel.register(-1)
    handle = world.channel.register(writer)
    with pytest.raises(ValueError, match="registered already"):
        world.channel.register(writer)
    world.channel.close(handle)
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError, match="is a directory"):
        world.channel.register(folder)
    os.close(folder)


def test_a_second_registration_leaves_a_socket_as_it_was(world):
    one, two = socket.socketpair()
    with one, two:
        one.settimeout(5)
        handle = world.channel.register(one)
        with pytest.raises(ValueError, match="registered already"):
            world.channel.register(one)
        assert world.channel.unregister(handle) is one
        assert one.gettimeout() == 5


def test_closing_twice(world):
    handle, _ = world.connect()
    world.channel.close(handle)
    with pytest.raises(mpserve.Closed):
        world.channel.close(handle)


def test_settings(world):
    with pytest.raises(ValueError, match="give 1 or more"):
        mpserve.Channel(world.host.worker, batch=0)
    with pytest.raises(ValueError, match="leave them out"):
        mpserve.Channel(world.host.worker, ip="10.9.0.2/24")
    with pytest.raises(SetupError, match="no setting listen"):
        mpserve.Channel(listen=":7")
    with pytest.raises(SetupError, match="no setting is called 'busy_pol'"):
        mpserve.Channel(busy_pol=True)
    with pytest.raises(ValueError, match="max_events"):
        world.channel.dispatch(0, max_events=0)
    for timeout in (-1, float("nan")):
        with pytest.raises(ValueError, match="a timeout of"):
            world.channel.dispatch(timeout)


# -- after the end


def test_a_write_behind_disconnect(world):
    handle, peer = world.connect()
    world.channel.disconnect(handle)
    for data in (b"", b"x"):
        with pytest.raises(mpserve.Closed, match="takes no more writes"):
            world.channel.write(handle, data)
    world.channel.disconnect(handle)
    assert [(event.kind.name, event.result) for event in world.all(0.1)] == [("DISCONNECT", 0)] * 2
    world.host.advance(0.1)
    assert peer.eof and peer.recv() == b""


def test_an_endpoint_closed_twice_before_it_is_registered(world):
    world.channel.accept(world.listener)
    peer = world.host.connect(7)
    endpoint = world.one().endpoint
    endpoint.close()
    endpoint.close()
    with pytest.raises(mpserve.Closed):
        world.channel.register(endpoint)
    world.all(0.1)
    assert peer.eof and not peer.was_reset


def test_a_channel_that_was_destroyed(world):
    handle, _ = world.connect()
    world.channel.destroy()
    for use in uses(world.channel):
        with pytest.raises(mpserve.Closed, match="the channel was closed"):
            use(handle)
    for use in (
        lambda: world.channel.connect(("10.9.0.1", 80)),
        lambda: world.channel.register(world.channel.listen(("", 9))),
        lambda: world.channel.dispatch(0),
    ):
        with pytest.raises(mpserve.Closed, match="the channel was closed"):
            use()


# -- sizes


def test_a_write_of_nothing_completes(world):
    handle, peer = world.connect()
    one, two = socket.socketpair()
    with one, two:
        for target in (handle, world.channel.register(one)):
            world.channel.write(target, b"")
            world.channel.writev(target, [])
            assert [(event.handle, event.result) for event in world.all(0.1)] == [(target, 0)] * 2
    assert peer.recv() == b"" and not peer.eof


def test_a_huge_write_waits_beside_the_send_buffer_and_fails_with_its_connection(world):
    handle, peer = world.connect(window=0)
    other, reader = world.connect("other")
    world.channel.write(handle, bytes((1 << 31) + 1))
    world.channel.write(other, b"unharmed")
    (event,) = world.all(0.5)
    world.host.advance(0.1)
    assert (event.cookie, event.result) == ("other", 8) and reader.recv() == b"unharmed"
    peer.reset()
    event = world.one()
    assert (event.kind, event.result) == (mpserve.Kind.WRITE, -errno.ECONNRESET)


@pytest.mark.parametrize("number", [1.5, "7", float("inf"), [1]], ids=repr)
def test_numbers_that_are_not_whole(world, number, tmp_path):
    handle, peer = world.connect()
    file = world.channel.register(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    for use in (
        lambda: world.channel.read(handle, number),
        lambda: world.channel.accept(world.listener, number),
        lambda: world.channel.dispatch(0, max_events=number),
        lambda: mpserve.Channel(world.host.worker, batch=number),
        lambda: world.channel.read(file, 1, offset=number),
    ):
        with pytest.raises(TypeError):
            use()
    peer.send(b"x")
    assert world.all(0.1) == [], "nothing was asked for"


@pytest.mark.parametrize("offset", [-1, 1 << 63, 1 << 80])
def test_offsets_out_of_range(world, tmp_path, offset):
    file = world.channel.register(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    for use in (lambda: world.channel.read(file, 1, offset), lambda: world.channel.write(file, b"x", offset)):
        with pytest.raises(ValueError, match="give 0 or more"):
            use()


@pytest.mark.parametrize("port", [0, -1, 65_536, 1 << 31, 1 << 80])
def test_ports_out_of_range(world, port):
    with pytest.raises(OSError, match="ports are 1 to 65535"):
        world.channel.connect(("10.9.0.1", port))


# -- who never reads


def test_who_accepts_and_does_nothing_holds_the_peer_and_little_memory(make_world):
    """Neither registered nor read."""
    world = make_world(rcvbuf_bytes=65_536, rcvbuf_max_bytes=0)
    world.channel.accept(world.listener)
    peer = world.host.connect(7)
    event = world.one()
    peer.send(bytes(1_000_000))
    world.host.advance(1.0)
    assert event.endpoint._unread_bytes < 2 * KEPT_BYTES + 65_536 and not peer.was_reset
    event.endpoint.close()
    world.all(0.1)
    assert peer.was_reset, "what it sent is lost"


# -- callbacks


class Beside(mpserve.Handler):
    """A channel in a worker, whose function does what the test says with it."""

    def __init__(self, react):
        self.react, self.calls = react, 0

    def on_start(self, worker):
        self.channel = mpserve.Channel(worker, on_completions=self.on_completions)
        self.channel.accept(self.channel.register(self.channel.listen(("", 8))), 100)

    def on_data(self, sock, data):
        sock.write(data)

    def on_completions(self, channel):
        self.calls += 1
        return self.react(channel)


def raise_an_error(channel):
    raise RuntimeError("on purpose")


def misuse(channel):
    for event in channel.dispatch():
        event.endpoint.close()
        channel.register(event.endpoint)


REACTIONS = {
    "raises": (raise_an_error, True),
    "misuses": (misuse, True),
    "returns": (lambda channel: channel.dispatch(), False),
    "never dispatches": (lambda channel: None, False),
    "destroys": (lambda channel: channel.destroy(), False),
}


@pytest.mark.parametrize("reaction", REACTIONS)
def test_what_on_completions_does_wrong_is_counted_and_hurts_nobody_else(mpserve_host, reaction):
    react, is_fault = REACTIONS[reaction]
    handler = Beside(react)
    host = mpserve_host(handler)
    host.connect(8)
    host.connect(8)
    good = host.connect()
    good.send(b"still served")
    host.settle()
    assert handler.calls > 0 and (host.stats["handler_errors"] > 0) == is_fault
    assert good.recv() == b"still served"


@pytest.mark.parametrize("function", [5, "dispatch", b""], ids=repr)
def test_on_completions_that_is_no_function(world, function):
    with pytest.raises(TypeError, match="give a function"):
        mpserve.Channel(world.host.worker, on_completions=function)
