"""Transports and servers of `mpserve.asyncio` on a virtual wire, in virtual time."""

import asyncio
import gc
import socket
import struct

import pytest

from mpserve.framework.aio.loop import VirtualLoop
from mpserve.framework.aio.station import make_loop_config, settings_of_environment
from mpserve.testing import Host


class Recording(asyncio.Protocol):
    """Notes every callback."""

    keep_open = False

    def __init__(self):
        self.seen = []

    def connection_made(self, transport):
        self.transport = transport
        self.seen.append("made")

    def data_received(self, data):
        self.seen.append(bytes(data))

    def eof_received(self):
        self.seen.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.seen.append("pause")

    def resume_writing(self):
        self.seen.append("resume")

    def connection_lost(self, error):
        self.seen.append(("lost", type(error)))


class Bench:
    """A host whose loop a test drives: `server` starts one, `run` finishes a coroutine in virtual time."""

    def __init__(self, **settings):
        from mpserve import Handler

        class Idle(Handler):
            async def handle(self, stream): ...

        self.host = Host(Idle(), **settings)
        self.loop: VirtualLoop = self.host.worker.loop
        self.protocols = []

    def run(self, coroutine, seconds=2.0):
        task = self.loop.create_task(coroutine)
        for _ in range(int(seconds * 100)):
            self.host.advance(0.01)
            if task.done():
                break
        return task.result()

    def factory(self, kind=Recording):
        def make():
            self.protocols.append(kind())
            return self.protocols[-1]

        return make

    def serve(self, kind=Recording, host=None, port=80, **settings):
        return self.run(self.loop.create_server(self.factory(kind), host, port, **settings))

    def accept(self, kind=Recording, **client):
        """(server's protocol, client) of a new connection."""
        self.serve(kind)
        made = self.host.connect(80, **client)
        self.host.settle()
        return self.protocols[-1], made


@pytest.fixture
def make_bench():
    made = []

    def make(**settings):
        made.append(Bench(**settings))
        return made[-1]

    yield make
    for bench in made:
        bench.host.stop()


@pytest.fixture
def bench(make_bench):
    return make_bench()


# -- a connection's life


def test_callbacks_come_in_order_and_eof_closes(bench):
    protocol, client = bench.accept()
    client.send(b"one")
    bench.host.settle()
    client.send(b"two")
    client.close()
    bench.host.settle()
    assert protocol.seen == ["made", b"one", b"two", "eof", ("lost", type(None))]
    assert client.closed and protocol.transport.is_closing()


def test_a_kept_half_open_connection_writes_on_and_is_lost_when_it_is_closed(bench):
    class KeepsOpen(Recording):
        keep_open = True

    protocol, client = bench.accept(KeepsOpen)
    client.close()
    bench.host.settle()
    protocol.transport.write(b"still here")
    bench.host.settle()
    assert client.recv() == b"still here" and not client.eof
    assert protocol.transport.can_write_eof()
    protocol.transport.write_eof()
    bench.host.settle()
    assert client.eof and protocol.seen == ["made", "eof"]
    with pytest.raises(RuntimeError, match="after write_eof"):
        protocol.transport.write(b"x")
    protocol.transport.close()
    bench.host.settle()
    assert protocol.seen[-1] == ("lost", type(None))


def test_close_loses_the_connection_at_once_and_the_stack_delivers_the_rest(bench):
    protocol, client = bench.accept()
    protocol.transport.write(b"x" * 20_000)
    protocol.transport.close()
    protocol.transport.close()
    bench.host.settle()
    assert protocol.seen == ["made", ("lost", type(None))]
    assert client.recv() == b"x" * 20_000 and client.eof and not client.was_reset


def test_close_waits_for_the_write_buffer(make_bench):
    bench = make_bench(sndbuf_bytes=16384)
    protocol, client = bench.accept()
    protocol.transport.write(b"y" * 200_000)
    assert protocol.transport.get_write_buffer_size() > 150_000
    protocol.transport.close()
    assert protocol.seen == ["made", "pause"]
    bench.host.advance(1.0)
    assert protocol.seen[-1] == ("lost", type(None))
    assert client.recv() == b"y" * 200_000 and client.eof


def test_what_is_written_as_the_buffer_drains_goes_out_after_close(make_bench):
    """So does the close_notify of TLS."""

    class LastWords(Recording):
        def resume_writing(self):
            super().resume_writing()
            self.transport.write(b"farewell")

    bench = make_bench(sndbuf_bytes=16384)
    protocol, client = bench.accept(LastWords)
    protocol.transport.write(b"y" * 200_000)
    protocol.transport.close()
    bench.host.advance(1.0)
    assert protocol.seen == ["made", "pause", "resume", ("lost", type(None))]
    assert client.recv() == b"y" * 200_000 + b"farewell" and client.eof


def test_abort_drops_the_write_buffer_and_reset_resets(make_bench):
    bench = make_bench(sndbuf_bytes=16384)
    protocol, client = bench.accept()
    protocol.transport.write(b"z" * 100_000)
    protocol.transport.abort()
    bench.host.advance(1.0)
    assert protocol.seen == ["made", "pause", ("lost", type(None))]
    assert 0 < len(client.recv()) < 100_000 and client.eof and not client.was_reset
    other = bench.host.connect(80)
    bench.protocols[-1].transport.reset()
    bench.host.settle()
    assert bench.protocols[-1].seen == ["made", ("lost", type(None))] and other.was_reset


def test_a_reset_is_a_connection_reset_error(bench):
    protocol, client = bench.accept()
    client.reset()
    bench.host.settle()
    assert protocol.seen == ["made", ("lost", ConnectionResetError)]
    for _ in range(8):
        protocol.transport.write(b"too late")
    assert protocol.transport.get_write_buffer_size() == 0


def test_writes_of_every_kind_arrive_in_order_and_others_are_refused(bench):
    protocol, client = bench.accept()
    buffer = bytearray(b"bytearray ")
    protocol.transport.write(b"bytes ")
    protocol.transport.write(buffer)
    buffer[:] = b"overwritten"
    protocol.transport.write(memoryview(b"view "))
    protocol.transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
    protocol.transport.write(b"")
    bench.host.settle()
    assert client.recv() == b"bytes bytearray view abc"
    with pytest.raises(TypeError, match="bytes-like"):
        protocol.transport.write("text")


def test_an_exception_in_a_callback_closes_that_connection_only(bench):
    reported = []
    bench.loop.set_exception_handler(lambda loop, context: reported.append(context))

    class Raises(Recording):
        def data_received(self, data):
            if data == b"raise":
                raise RuntimeError("told to")
            super().data_received(data)

    bad, bad_client = bench.accept(Raises)
    good_client = bench.host.connect(80)
    bad_client.send(b"raise")
    good_client.send(b"fine")
    bench.host.settle()
    assert bad.seen == ["made", ("lost", RuntimeError)] and bad_client.eof
    assert bench.protocols[-1].seen == ["made", b"fine"]
    assert [context["message"] for context in reported] == ["Fatal error: protocol.data_received() call failed."]


def test_ctrl_c_in_a_callback_loses_no_event(bench):
    class Interrupted(Recording):
        def data_received(self, data):
            super().data_received(data)
            if data == b"stop":
                raise KeyboardInterrupt

    bench.serve(Interrupted)
    clients = [bench.host.connect(80) for _ in range(3)]
    for client, word in zip(clients, (b"a", b"stop", b"c"), strict=True):
        client.send(word)
    with pytest.raises(KeyboardInterrupt):
        bench.host.settle()
    bench.host.settle()
    assert [p.seen[1:] for p in bench.protocols] == [[b"a"], [b"stop"], [b"c"]]


# -- flow control


def test_paused_reading_holds_data_and_eof(bench):
    protocol, client = bench.accept()
    protocol.transport.pause_reading()
    assert not protocol.transport.is_reading()
    client.send(b"held")
    client.close()
    bench.host.advance(0.5)
    assert protocol.seen == ["made"]
    protocol.transport.resume_reading()
    protocol.transport.resume_reading()
    bench.host.advance(0.5)
    assert protocol.seen == ["made", b"held", "eof", ("lost", type(None))]


def test_nothing_is_received_after_a_pause_in_the_same_batch(bench):
    class PausesAtOnce(Recording):
        def data_received(self, data):
            super().data_received(data)
            self.transport.pause_reading()

    protocol, client = bench.accept(PausesAtOnce)
    client.send(b"a")
    client.close()
    bench.host.advance(0.5)
    assert protocol.seen == ["made", b"a"]
    protocol.transport.resume_reading()
    bench.host.advance(0.5)
    assert protocol.seen[2:] == ["eof", ("lost", type(None))]


def test_a_paused_transport_closes_the_window(make_bench):
    bench = make_bench(rcvbuf_bytes=16384)
    protocol, client = bench.accept()
    protocol.transport.pause_reading()
    client.send(b"z" * 100_000)
    bench.host.advance(1.0)
    assert len(client._unsent) > 60_000
    protocol.transport.resume_reading()
    bench.host.advance(5.0)
    assert sum(map(len, protocol.seen[1:])) == 100_000


def test_pause_writing_at_the_high_and_resume_at_the_low_water_mark(make_bench):
    bench = make_bench(sndbuf_bytes=16384)
    protocol, client = bench.accept()
    protocol.transport.set_write_buffer_limits(high=100_000, low=50_000)
    assert protocol.transport.get_write_buffer_limits() == (50_000, 100_000)
    protocol.transport.write(bytes(90_000))
    assert protocol.seen == ["made"]
    protocol.transport.write(bytes(60_000))
    assert protocol.seen == ["made", "pause"]
    size = protocol.transport.get_write_buffer_size()
    assert 100_000 < size < 150_000
    bench.host.advance(1.0)
    assert protocol.seen == ["made", "pause", "resume"]
    assert protocol.transport.get_write_buffer_size() == 0 and len(client.recv()) == 150_000


def test_more_than_a_handler_may_write_is_taken(make_bench):
    bench = make_bench(sndbuf_bytes=16384)
    protocol, client = bench.accept(window=0)
    for _ in range(80):
        protocol.transport.write(bytes(1 << 20))
    bench.host.settle()
    assert protocol.transport.get_write_buffer_size() > 79 << 20 and not client.was_reset
    protocol.transport.abort()


# -- buffered protocols and changes of protocol


class Buffered(asyncio.BufferedProtocol):
    """Takes seven bytes at a time."""

    def __init__(self):
        self.buffer, self.received, self.lost = bytearray(7), b"", False

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        assert sizehint > 0
        return self.buffer

    def buffer_updated(self, nbytes):
        self.received += bytes(self.buffer[:nbytes])

    def connection_lost(self, error):
        self.lost = True


def test_a_buffered_protocol(bench):
    protocol, client = bench.accept(Buffered)
    client.send(bytes(range(100)))
    bench.host.settle()
    assert protocol.received == bytes(range(100))


def test_a_buffered_protocol_that_hands_over_in_the_middle(bench):
    following = Recording()

    class HandsOver(Buffered):
        def buffer_updated(self, nbytes):
            super().buffer_updated(nbytes)
            self.transport.set_protocol(following)

    protocol, client = bench.accept(HandsOver)
    client.send(b"0123456789")
    bench.host.settle()
    assert protocol.received == b"0123456" and following.seen == [b"789"]
    assert protocol.transport.get_protocol() is following


def test_an_empty_buffer_is_fatal(bench):
    bench.loop.set_exception_handler(lambda loop, context: None)

    class Empty(Buffered):
        def get_buffer(self, sizehint):
            return bytearray()

    protocol, client = bench.accept(Empty)
    client.send(b"x")
    bench.host.settle()
    assert protocol.lost and client.eof


# -- servers


def test_a_server_and_its_sockets(bench):
    server = bench.serve(host="10.9.0.2", port=8000)
    assert server.is_serving()
    (sock,) = server.sockets
    assert sock.getsockname() == ("10.9.0.2", 8000) and sock.family == socket.AF_INET and sock.fileno() == -1
    assert "TransportSocket" in repr(sock)
    client = bench.host.connect(8000)
    assert client.established
    server.close()
    assert not server.is_serving() and server.sockets == ()
    late = bench.host.connect(8000)
    assert late.was_reset and not client.was_reset
    again = bench.serve(port=8000)
    assert bench.host.connect(8000).established
    again.close()


def test_start_serving_later(bench):
    server = bench.serve(start_serving=False)
    assert not server.is_serving()
    assert bench.host.connect(80).was_reset
    bench.run(server.start_serving())
    assert bench.host.connect(80).established


def test_serve_forever_until_cancelled(bench):
    async def serve():
        async with await bench.loop.create_server(bench.factory(), "10.9.0.2", 81) as server:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(server.serve_forever(), 0.5)
            return server.is_serving()

    assert bench.run(serve()) is False
    assert bench.host.connect(81).was_reset


def test_ports(bench):
    one, other = bench.serve(port=0), bench.serve(port=0)
    ports = {server.sockets[0].getsockname()[1] for server in (one, other)}
    assert len(ports) == 2 and all(bench.host.connect(port).established for port in ports)
    with pytest.raises(OSError, match="in use"):
        bench.serve(port=min(ports))
    with pytest.raises(OverflowError):
        bench.serve(port=65536)


def test_many_servers_one_after_the_other(bench):
    for _ in range(200):
        bench.serve(port=90).close()
    bench.serve(port=90)
    assert bench.host.connect(90).established


@pytest.mark.parametrize("host", ["10.9.0.2", "0.0.0.0", "", None, ["10.9.0.2"]])
def test_hosts_that_are_the_stacks(bench, host):
    server = bench.serve(host=host)
    wanted = "10.9.0.2" if host and "10.9.0.2" in host else "0.0.0.0"
    assert [sock.getsockname() for sock in server.sockets] == [(wanted, 80)]
    assert bench.host.connect(80).established


def test_other_hosts_are_the_kernels_also_beside_ours(bench):
    server = bench.serve(host="127.0.0.1", port=0)
    assert server.sockets[0].getsockname()[0] == "127.0.0.1" and server.sockets[0].fileno() >= 0
    server.close()
    both = bench.serve(host=["127.0.0.1", "10.9.0.2"], port=0)
    assert sorted(sock.getsockname()[0] for sock in both.sockets) == ["10.9.0.2", "127.0.0.1"]
    both.close()


def test_what_asyncio_refuses_is_refused(bench):
    with pytest.raises(TypeError, match="SSLContext or None"):
        bench.serve(ssl=True)
    with pytest.raises(ValueError, match="only meaningful with ssl"):
        bench.serve(ssl_handshake_timeout=1.0)


def test_a_factory_that_raises_ends_that_connection(bench):
    reported = []
    bench.loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))

    def factory():
        raise RuntimeError("told to")

    bench.run(bench.loop.create_server(factory, None, 80))
    client = bench.host.connect(80)
    bench.host.settle()
    assert client.was_reset and [str(error) for error in reported] == ["told to"]


# -- connections


def test_create_connection(bench):
    accepted = bench.host.listen(443)
    transport, protocol = bench.run(bench.loop.create_connection(Recording, "10.9.0.1", 443))
    assert transport.get_extra_info("peername") == ("10.9.0.1", 443)
    assert transport.get_extra_info("sockname")[0] == "10.9.0.2"
    transport.write(b"hello")
    bench.host.advance(0.1)
    assert accepted[0].recv() == b"hello"
    accepted[0].send(b"you")
    bench.host.advance(0.1)
    assert protocol.seen == ["made", b"you"]


def test_who_opened_it_comes_before_the_first_data(bench):
    """So that the protocol may be changed first."""
    bench.host.listen(25)
    order = []

    class Notes(Recording):
        def data_received(self, data):
            order.append(data)

    async def connect():
        await bench.loop.create_connection(Notes, "10.9.0.1", 25)
        order.append("awaited")

    bench.loop.create_task(connect())
    bench.host.settle()
    for _ in range(100):
        bench.host.advance(0.001)
        accepted = bench.host._listening["10.9.0.1", 25]
        if accepted:
            accepted[0].send(b"220 ready")
            break
    bench.host.advance(0.1)
    assert order == ["awaited", b"220 ready"]


def test_connections_that_are_not_to_be_had(bench):
    bench.host.listen(81, accept=False)
    with pytest.raises(ConnectionRefusedError):
        bench.run(bench.loop.create_connection(Recording, "10.9.0.1", 81))
    with pytest.raises(OSError, match="Connect call failed"):
        bench.run(bench.loop.create_connection(Recording, "10.9.0.1", 82), seconds=300.0)


def test_a_cancelled_attempt_leaves_nothing(bench):
    async def give_up():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(bench.loop.create_connection(Recording, "10.9.0.1", 83), 0.2)

    bench.run(give_up())
    bench.host.advance(0.1)
    assert [sock for sock in bench.host.worker._sockets if sock] == []


def test_local_addr_gives_the_source_port(bench):
    accepted = bench.host.listen(443)
    bench.run(bench.loop.create_connection(Recording, "10.9.0.1", 443, local_addr=("10.9.0.2", 50_001)))
    assert accepted[0].remote[1] == 50_001


def test_what_has_a_route(make_bench):
    worker = make_bench().host.worker
    ours = {
        "10.9.0.1": True,
        "10.9.0.2": False,
        "127.0.0.1": False,
        "10.8.0.1": False,
        "224.0.0.1": False,
        "::1": False,
    }
    assert {address: worker.has_route(address) for address in ours} == ours


def test_a_socket_connected_by_sock_connect_becomes_ours(bench):
    """As aiohttp connects."""
    accepted = bench.host.listen(80)

    async def connect():
        sock = socket.socket()
        sock.setblocking(False)
        await bench.loop.sock_connect(sock, ("10.9.0.1", 80))
        return await bench.loop.create_connection(Recording, sock=sock)

    transport, _ = bench.run(connect())
    transport.write(b"over the stack")
    bench.host.advance(0.1)
    assert accepted[0].recv() == b"over the stack"


def test_sock_operations_over_the_stack(bench):
    accepted = bench.host.listen(80)

    async def talk():
        sock = socket.socket()
        sock.setblocking(False)
        await bench.loop.sock_connect(sock, ("10.9.0.1", 80))
        await bench.loop.sock_sendall(sock, b"question")
        first = await bench.loop.sock_recv(sock, 3)
        buffer = bytearray(10)
        size = await bench.loop.sock_recv_into(sock, buffer)
        return first + bytes(buffer[:size])

    task = bench.loop.create_task(talk())
    bench.host.advance(0.1)
    assert accepted[0].recv() == b"question"
    accepted[0].send(b"answer")
    bench.host.advance(0.1)
    assert task.result() == b"answer"


def test_a_joined_socket_that_is_dropped_is_closed(bench):
    accepted = bench.host.listen(80)

    async def connect():
        sock = socket.socket()
        sock.setblocking(False)
        await bench.loop.sock_connect(sock, ("10.9.0.1", 80))
        sock.close()

    bench.run(connect())
    gc.collect()
    bench.host.advance(0.1)
    assert accepted[0].eof


# -- the stand-in for a socket


def test_the_socket_of_a_transport(bench):
    protocol, client = bench.accept()
    sock = protocol.transport.get_extra_info("socket")
    assert sock.getpeername() == client.local == protocol.transport.get_extra_info("peername")
    assert sock.getsockname() == ("10.9.0.2", 80) and sock.family == socket.AF_INET and sock.type == socket.SOCK_STREAM
    assert sock.fileno() == -1 and sock.gettimeout() == 0.0 and not sock.getblocking()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    linger = struct.pack("ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == linger
    with pytest.raises(OSError, match="not supported"):
        sock.setsockopt(socket.SOL_SOCKET, 9999, 1)
    with pytest.raises(ValueError, match="can't block"):
        sock.setblocking(True)
    protocol.transport.abort()
    bench.host.settle()
    assert sock.getpeername() == client.local
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


# -- settings


def test_settings_come_from_keywords_then_the_environment_then_the_file(tmp_path, monkeypatch):
    file = tmp_path / "mpserve.toml"
    file.write_text('[server]\ndevice = "tap"\nip = "10.1.0.2/24"\nmax-connections = 100\nlisten = ":80"\n')
    monkeypatch.setenv("MPSERVE_IP", "10.2.0.2/24")
    monkeypatch.setenv("MPSERVE_BUSY_POLL", "on")
    assert settings_of_environment() == {"ip": "10.2.0.2/24", "busy_poll": "on"}
    config = make_loop_config({"device": "veth", "gateway": None}, str(file))
    assert (config.device, config.ip, config.busy_poll) == ("veth", "10.2.0.2/24", True)
    assert config.limits == {"max_connections": 100}


@pytest.mark.parametrize("name", ["listen", "publish"])
def test_settings_that_are_the_programs_own_are_refused(name):
    from mpserve import SetupError

    with pytest.raises(SetupError, match="is not for an event loop"):
        make_loop_config({name: ":80"})
