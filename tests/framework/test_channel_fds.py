"""Regular descriptors in a channel: pipes, kernel sockets and files, beside connections of our stack."""

import errno
import os
import socket

import pytest

import mpserve
from mpserve import Kind

CANCELED = -errno.ECANCELED


@pytest.fixture
def channel(world):
    return world.channel


@pytest.fixture
def pair():
    one, two = socket.socketpair()
    with one, two:
        yield one, two


def gather(channel, count):
    """So many completions; each is waited for."""
    events = []
    while len(events) < count:
        events += channel.dispatch(10)
    return events


def test_a_pipe(channel):
    reader, writer = (channel.register(fd, cookie) for fd, cookie in zip(os.pipe(), "rw", strict=True))
    channel.read(reader, 100)
    assert channel.dispatch(0) == []
    channel.write(writer, b"abc")
    events = gather(channel, 2)
    assert {(e.kind, e.cookie, e.result, e.data) for e in events} == {
        (Kind.WRITE, "w", 3, b""),
        (Kind.READ, "r", 3, b"abc"),
    }
    channel.close(writer)
    channel.read(reader, 100)
    (event,) = gather(channel, 1)
    assert event.result == 0
    with pytest.raises(ValueError, match="no disconnect"):
        channel.disconnect(reader)


def test_a_write_larger_than_the_kernel_takes(channel, pair):
    data = bytes(range(256)) * 20_000
    one, two = channel.register(pair[0]), channel.register(pair[1])
    channel.write(one, data)
    channel.write(one, b"end")
    channel.disconnect(one)
    assert channel.dispatch(0) == []
    got, written = bytearray(), []
    while True:
        channel.read(two, 100_000)
        events = gather(channel, 1)
        written += [(e.kind, e.result) for e in events if e.handle == one]
        reads = [e for e in events if e.kind == Kind.READ]
        got += b"".join(e.data for e in reads)
        if any(e.result == 0 for e in reads):
            break
    assert got == data + b"end"
    assert written == [(Kind.WRITE, len(data)), (Kind.WRITE, 3), (Kind.DISCONNECT, 0)]


def test_reads_keep_their_order(channel, pair):
    handle = channel.register(pair[0])
    for size in (1, 2, 3):
        channel.read(handle, size)
    pair[1].send(b"abbccc")
    assert [event.data for event in gather(channel, 3)] == [b"a", b"bb", b"ccc"]


def test_an_error_is_a_completion(channel, pair):
    handle = channel.register(pair[0])
    pair[1].close()
    channel.write(handle, b"x")
    channel.write(handle, b"y")
    assert [event.result for event in gather(channel, 2)] == [-errno.EPIPE] * 2


def test_close_cancels_and_closes(channel, pair):
    handle = channel.register(pair[0])
    channel.read(handle, 1)
    channel.write(handle, b"last words")
    channel.close(handle)
    assert sorted((e.kind, e.result) for e in gather(channel, 2)) == [(Kind.READ, CANCELED), (Kind.WRITE, 10)]
    assert pair[0].fileno() == -1
    assert pair[1].recv(100) == b"last words" and pair[1].recv(100) == b""


def test_unregister_gives_it_back_as_it_was(channel, pair):
    pair[0].settimeout(3)
    handle = channel.register(pair[0])
    channel.read(handle, 100)
    channel.flush()
    assert channel.unregister(handle) is pair[0]
    pair[1].send(b"mine again")
    assert channel.dispatch(0.05) == []
    assert pair[0].gettimeout() == 3 and pair[0].recv(100) == b"mine again"


def test_a_socket_closed_behind_our_back(channel, pair):
    """Its number may be somebody else's by now: nothing is done to it."""
    handle = channel.register(pair[0])
    number = pair[0].fileno()
    pair[0].close()
    reader, writer = os.pipe()
    assert number in (reader, writer)
    channel.read(handle, 1)
    channel.write(handle, b"x")
    assert [event.result for event in gather(channel, 2)] == [-errno.EBADF] * 2
    channel.close(handle)
    channel.flush()
    os.fstat(number)
    os.close(reader)
    os.close(writer)


def test_a_kernel_listener(channel):
    with socket.create_server(("127.0.0.1", 0)) as server:
        handle = channel.register(server, "listener")
        clients = [socket.create_connection(server.getsockname()) for _ in range(3)]
        channel.accept(handle, 2)
        events = gather(channel, 2)
        assert [(e.kind, e.cookie, e.waiting) for e in events] == [
            (Kind.ACCEPT, "listener", 2),
            (Kind.ACCEPT, "listener", 1),
        ]
        one = channel.register(events[0].endpoint)
        channel.read(one, 100)
        clients[0].send(b"hi")
        assert gather(channel, 1)[0].data == b"hi"
        channel.close(one)
        channel.flush()
        assert clients[0].recv(1) == b""
        channel.accept(handle, 5)
        assert gather(channel, 1)[0].waiting == 0
        channel.close(handle)
        assert gather(channel, 1)[0].result == CANCELED
        for client in clients:
            client.close()


def test_a_unix_listener_by_its_descriptor(channel, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        handle = channel.register(server.fileno())
        channel.accept(handle, regular=True)
        assert channel.dispatch(0) == []
        client.connect(path)
        (event,) = gather(channel, 1)
        assert event.waiting == -1 and isinstance(event.endpoint, socket.socket)
        event.endpoint.close()
        assert channel.unregister(handle) == server.fileno()


def test_a_file(channel, tmp_path):
    path = tmp_path / "file"
    file = path.open("w+b", buffering=0)
    handle = channel.register(file, "f")
    channel.write(handle, b"0123456789")
    channel.write(handle, b"AB", offset=2)
    channel.writev(handle, [b"x", b"y"])
    channel.read(handle, 5, offset=0)
    channel.read(handle, 5)
    channel.read(handle, 1 << 100, offset=9)
    events = gather(channel, 6)
    assert [(e.kind, e.result, e.data) for e in events] == [
        (Kind.WRITE, 10, b""),
        (Kind.WRITE, 2, b""),
        (Kind.WRITE, 2, b""),
        (Kind.READ, 5, b"01AB4"),
        (Kind.READ, 0, b""),
        (Kind.READ, 3, b"9xy"),
    ]
    channel.write(handle, b"!", offset=1 << 20)
    channel.close(handle)
    assert gather(channel, 1)[0].result == 1
    while not file.closed:
        channel.dispatch(0.01)
    assert path.stat().st_size == (1 << 20) + 1


def test_a_file_that_cannot_be_written(channel, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    handle = channel.register(os.open(path, os.O_RDONLY))
    channel.write(handle, b"y")
    assert gather(channel, 1)[0].result == -errno.EBADF
    with pytest.raises(ValueError, match="offset"):
        channel.read(handle, 1, offset=-1)
    channel.close(handle)


def test_a_file_is_written_to_the_end_before_the_channel_is_gone(make_world, tmp_path):
    channel = make_world().channel
    path = tmp_path / "file"
    handle = channel.register(path.open("wb", buffering=0))
    for _ in range(20):
        channel.write(handle, bytes(100_000))
    channel.destroy()
    assert path.stat().st_size == 2_000_000


def test_all_kinds_in_one_channel(world, pair, tmp_path):
    """A connection's bytes go through a kernel socket and a file, and back."""
    channel = world.channel
    handle, peer = world.connect("lw")
    kernel = channel.register(pair[0], "kernel")
    file = channel.register((tmp_path / "f").open("w+b", buffering=0), "file")
    channel.read(handle, 100)
    channel.read(kernel, 100)
    peer.send(b"through")
    seen = []
    while peer.recv() == b"" and len(seen) < 20:
        for event in channel.dispatch(10):
            seen.append((event.cookie, event.kind))
            if event.kind == Kind.READ and event.cookie == "lw":
                channel.write(kernel, event.data)
            elif event.kind == Kind.WRITE and event.cookie == "kernel":
                pair[1].send(pair[1].recv(100))
            elif event.kind == Kind.READ and event.cookie == "kernel":
                channel.write(file, event.data)
            elif event.kind == Kind.WRITE and event.cookie == "file":
                channel.read(file, 100, offset=0)
            elif event.kind == Kind.READ and event.cookie == "file":
                channel.write(handle, event.data)
        world.host.settle()
    assert seen == [
        ("lw", Kind.READ),
        ("kernel", Kind.WRITE),
        ("kernel", Kind.READ),
        ("file", Kind.WRITE),
        ("file", Kind.READ),
        ("lw", Kind.WRITE),
    ]


def test_options_of_a_kernel_socket(channel, pair):
    handle = channel.register(pair[0].fileno())
    channel.setsockopt(handle, socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    assert channel.getsockopt(handle, socket.SOL_SOCKET, socket.SO_SNDBUF) == 16_384
    reader = channel.register(os.pipe()[0])
    with pytest.raises(OSError, match="[Ss]ocket"):
        channel.getsockopt(reader, socket.SOL_SOCKET, socket.SO_SNDBUF)
    with pytest.raises(mpserve.Closed):
        channel.close(reader)
        channel.getsockopt(reader, 1, 1)
    channel.unregister(handle)
