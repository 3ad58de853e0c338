"""`async def handle(self, stream)`, in virtual time: reads, writes, time, exceptions, the end."""

import asyncio
import logging

import pytest

import mpserve
from mpserve.framework.load import find_handler
from mpserve.framework.options import parse_options

pytestmark = pytest.mark.on_kernel_sockets


class Upper(mpserve.Handler):
    greeting: str = ""

    async def handle(self, stream):
        stream.write(self.greeting.encode())
        while data := await stream.read(4096):
            stream.write(data.upper())
            await stream.drain()


def test_an_echo(mpserve_host):
    host = mpserve_host(Upper(greeting="hi "))
    first, second = host.connect(), host.connect()
    first.send(b"abc")
    second.send(b"def")
    host.settle()
    assert (first.recv(), second.recv()) == (b"hi ABC", b"hi DEF")
    first.close()
    host.settle()
    assert first.eof and not first.was_reset and not second.eof
    assert host.stats["handler_errors"] == 0


class Reader(mpserve.Handler):
    """Notes what each way of reading gives."""

    def on_start(self, worker):
        self.worker, self.seen = worker, []

    async def handle(self, stream):
        self.seen.append(stream.peername[0])
        self.seen.append(await stream.readline())
        self.seen.append(await stream.readexactly(3))
        self.seen.append(await stream.readuntil(b";"))
        async for line in stream:
            self.seen.append(line)
        stream.write(b"all")
        stream.write_eof()


def test_every_way_of_reading_one_byte_at_a_time(mpserve_host):
    handler = Reader()
    host = mpserve_host(handler)
    client = host.connect()
    for byte in b"line\nabcuntil;one\ntwo\nrest":
        client.send(bytes([byte]))
        host.settle()
    client.close()
    host.settle()
    assert handler.seen == [host.far, b"line\n", b"abc", b"until;", b"one\n", b"two\n", b"rest"]
    assert client.recv() == b"all" and client.eof


@pytest.mark.stack_only
def test_large_amounts_over_a_lossy_wire(mpserve_host):
    host = mpserve_host(Upper(), loss=0.05, seed=3)
    client = host.connect()
    client.send(b"x" * 300_000)
    client.close()
    received = b""
    for _ in range(400):
        host.advance(0.25)
        received += client.recv()
        if client.eof:
            break
    assert received == b"X" * 300_000


class Slow(mpserve.Handler):
    async def handle(self, stream):
        try:
            await asyncio.wait_for(stream.read(1), 5.0)
        except TimeoutError:
            stream.write(b"too late")
            return
        await asyncio.sleep(30.0)
        stream.write(await asyncio.to_thread(lambda: b"thirty"))


def test_time_is_the_hosts(mpserve_host):
    host = mpserve_host(Slow())
    silent, eager = host.connect(), host.connect()
    eager.send(b"x")
    host.advance(4.9)
    assert silent.recv() == b"" and not silent.eof
    host.advance(0.2)
    assert silent.recv() == b"too late" and silent.eof
    host.advance(24.8)
    assert eager.recv() == b""
    host.advance(0.2)
    assert eager.recv() == b"thirty"


class Fragile(mpserve.Handler):
    async def handle(self, stream):
        if await stream.read(9) == b"raise":
            raise RuntimeError("told to")
        stream.write(b"fine")


def test_an_exception_aborts_its_connection_only(mpserve_host, caplog):
    host = mpserve_host(Fragile(), log=logging.getLogger("fragile"))
    bad, good = host.connect(), host.connect()
    bad.send(b"raise")
    good.send(b"go on")
    with caplog.at_level(logging.ERROR):
        host.settle()
    assert bad.was_reset and not good.was_reset and good.recv() == b"fine"
    assert host.stats["handler_errors"] == 1
    assert "told to" in caplog.text and "Fragile: exception in handle" in caplog.text


class Exact(mpserve.Handler):
    def on_start(self, worker):
        self.ends = []

    async def handle(self, stream):
        try:
            await stream.readexactly(10)
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            self.ends.append(type(error))


@pytest.mark.parametrize(("how", "error"), [("close", asyncio.IncompleteReadError), ("reset", ConnectionResetError)])
def test_an_end_comes_out_of_the_read(mpserve_host, how, error):
    handler = Exact()
    host = mpserve_host(handler)
    client = host.connect()
    client.send(b"four")
    getattr(client, how)()
    host.settle()
    assert handler.ends == [error]


def test_a_slow_reader_stops_the_writer(mpserve_host):
    class Endless(mpserve.Handler):
        written = 0

        async def handle(self, stream):
            while True:
                stream.write(bytes(10_000))
                self.written += 10_000
                await stream.drain()

    handler = Endless()
    host = mpserve_host(handler, sndbuf_bytes=65536)
    host.connect(window=0)
    host.advance(1.0)
    assert 64_000 < handler.written < 1_000_000


@pytest.mark.stack_only
def test_connections_out_of_a_handler_go_over_the_stack(mpserve_host):
    class Proxy(mpserve.Handler):
        async def handle(self, stream):
            reader, writer = await asyncio.open_connection("10.9.0.1", 80)
            writer.write(await stream.read(100))
            stream.write(await reader.read(100))
            writer.close()

    host = mpserve_host(Proxy())
    behind = host.listen(80)
    client = host.connect()
    client.send(b"ping")
    host.advance(0.1)
    assert behind[0].recv() == b"ping"
    behind[0].send(b"pong")
    host.advance(0.1)
    assert client.recv() == b"pong"


@pytest.mark.stack_only
def test_a_refused_connection_is_an_oserror_as_asyncio_has_it(mpserve_host):
    class Caller(mpserve.Handler):
        async def handle(self, stream):
            try:
                await asyncio.open_connection("10.9.0.1", 81)
            except ConnectionRefusedError as error:
                stream.write(str(error).encode())

    host = mpserve_host(Caller())
    host.listen(81, accept=False)
    client = host.connect()
    host.advance(0.5)
    assert b"Connect call failed ('10.9.0.1', 81)" in client.recv()


def test_handle_beside_callbacks_that_would_never_be_called_is_refused(tmp_path):
    path = tmp_path / "both.py"
    path.write_text(
        "import mpserve\nclass Both(mpserve.Handler):\n"
        "    async def handle(self, stream): ...\n    def on_data(self, sock, data): ...\n"
    )
    with pytest.raises(mpserve.SetupError, match="defines both handle and on_data"):
        find_handler(f"{path}:Both")


def test_an_async_handler_has_options():
    assert parse_options(Upper, {"greeting": "x"}) == {"greeting": "x"}


def test_tasks_end_with_the_host(mpserve_host):
    ended = []

    class Waiting(mpserve.Handler):
        async def handle(self, stream):
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append(stream.peername)

    host = mpserve_host(Waiting())
    host.connect()
    host.stop()
    assert len(ended) == 1
