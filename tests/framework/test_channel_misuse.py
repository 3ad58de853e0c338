"""What a channel refuses, and how: handles that are stale or another's, sizes, masks, commands that do not fit."""

import os
import socket

import pytest

import mpserve
from mpserve.dataplane.errors import SetupError


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
    with pytest.raises(NotImplementedError, match="not there yet"):
        world.channel.accept(world.listener, regular=True)


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
