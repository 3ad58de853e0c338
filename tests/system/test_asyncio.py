"""`mpserve.asyncio` over a real device: streams, TLS, threads and subprocesses beside them, and well-known libraries.

The programs run as `mpserve python` or with uvicorn's --loop, in the namespace of the test; the kernel is the other side.
"""

import contextlib
import importlib.util
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.dpdk]
IP, KERNEL = "10.31.8.2", "10.31.8.1"
MPSERVE = [sys.executable, "-m", "mpserve.cli"]
EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 60


def needs(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")


@pytest.fixture
def running(world: int, tmp_path: Path) -> Iterator[Callable[..., "Program"]]:
    with contextlib.ExitStack() as stack:

        def start(text: str, *arguments: str) -> Program:
            path = tmp_path / "program.py"
            path.write_text(textwrap.dedent(text))
            command = [*MPSERVE, "python", "--ip", f"{IP}/24", str(path), *arguments]
            return stack.enter_context(Program(command))

        yield start


class Program:
    """A program that is ended by a signal, unless it ends by itself; afterwards nothing of it may be left."""

    def __init__(self, command: list[str], **environment: str) -> None:
        self.before = {name for _, name in socket.if_nameindex()}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
        )

    def __enter__(self) -> "Program":
        return self

    def output(self, stop: int | None = None) -> str:
        """What it said until it ended, if need be by the signal."""
        if stop is not None:
            self.process.send_signal(stop)
        said, _ = self.process.communicate(timeout=SECONDS)
        return said

    def __exit__(self, kind: object, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            print(self.process.communicate()[0], file=sys.stderr)
            subprocess.run(["ip", "link", "del", f"mps{self.process.pid}"], check=False, capture_output=True)
        elif kind is None:
            assert {name for _, name in socket.if_nameindex()} <= self.before, "an interface is left"


def connected(port: int, program: Program, address: str = IP) -> socket.socket:
    """A kernel socket to the program, once it listens."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return socket.create_connection((address, port), 5)
        except OSError:
            assert time.monotonic() < deadline and program.process.poll() is None, program.output(signal.SIGTERM)
            time.sleep(0.1)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while data := sock.recv(65536):
        parts.append(data)
    return b"".join(parts)


ECHO = """
    import asyncio

    async def handle(reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(handle, "0.0.0.0", 7000)
        await server.serve_forever()

    asyncio.run(main())
"""


def echoes(sock: socket.socket, data: bytes) -> bool:
    def send() -> None:
        sock.sendall(data)
        if not isinstance(sock, ssl.SSLSocket):
            sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    sender.start()
    received = b""
    while len(received) < len(data) and (piece := sock.recv(65536)):
        received += piece
    sender.join()
    return received == data


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_streams_and_a_clean_end(running: Callable[..., Program], number: int, status: int) -> None:
    program = running(ECHO)
    with connected(7000, program) as sock, connected(7000, program) as idle:
        assert echoes(sock, os.urandom(4 << 20))
        said = program.output(number)
        assert program.process.returncode == status, said
        assert read_all(idle) == b""


def test_what_was_written_last_arrives_though_the_program_ends(running: Callable[..., Program]) -> None:
    program = running("""
        import asyncio

        async def main():
            done = asyncio.Event()

            async def handle(reader, writer):
                writer.write(b"x" * 5_000_000)
                writer.close()
                await writer.wait_closed()
                done.set()

            async with await asyncio.start_server(handle, "", 7000):
                await done.wait()

        asyncio.run(main())
    """)
    with connected(7000, program) as sock:
        assert len(read_all(sock)) == 5_000_000
    assert program.process.wait(SECONDS) == 0


def test_everything_else_beside_our_connections(running: Callable[..., Program]) -> None:
    """Subprocess, signal, thread, timer, Unix socket, loopback, DNS of localhost, a second asyncio.run."""
    program = running("""
        import asyncio, os, signal, socket, subprocess, threading, time

        async def talk(reader, writer):
            writer.write(b"<" + await reader.readline())
            writer.close()

        async def ask(reader, writer):
            writer.write(b"hello\\n")
            answer = await reader.read()
            writer.close()
            return answer

        async def main():
            loop = asyncio.get_running_loop()
            server = await asyncio.start_server(talk, "10.31.8.2", 7000)
            local = await asyncio.start_server(talk, "localhost", 7001)
            unix = await asyncio.start_unix_server(talk, "/tmp/mpserve-test-%d" % os.getpid())
            kernel = socket.create_server(("10.31.8.1", 7002))
            kernel.setblocking(False)
            accepting = asyncio.create_task(loop.sock_accept(kernel))
            print("stack", await asyncio.to_thread(lambda: blocking(("10.31.8.2", 7000))))
            print("loopback", await ask(*await asyncio.open_connection("localhost", 7001)))
            print("unix", await ask(*await asyncio.open_unix_connection("/tmp/mpserve-test-%d" % os.getpid())))
            reader, writer = await asyncio.open_connection("10.31.8.1", 7002)
            accepted, peer = await accepting
            print("out", writer.get_extra_info("sockname")[0], peer[0])
            await loop.sock_sendall(accepted, b"from the kernel")
            accepted.close()
            print(await reader.read())
            child = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            print("child", (await child.communicate(b"through a pipe"))[0], child.returncode)
            seen = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, seen.set)
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.wait_for(seen.wait(), 10)
            started = time.monotonic()
            await asyncio.sleep(0.2)
            print("slept", 0.19 < time.monotonic() - started)
            os.unlink("/tmp/mpserve-test-%d" % os.getpid())

        def blocking(address):
            with socket.create_connection(address, 10) as sock:
                sock.sendall(b"hello\\n")
                return sock.recv(100)

        asyncio.run(main())

        async def again():
            return asyncio.get_running_loop().worker.address

        print("again", asyncio.run(again()))
    """)
    said = program.output()
    wanted = [
        "stack b'<hello\\n'",
        "loopback b'<hello\\n'",
        "unix b'<hello\\n'",
        f"out {IP} {IP}",
        "b'from the kernel'",
        "child b'through a pipe' 0",
        "slept True",
        f"again {IP}",
    ]
    assert said.splitlines() == wanted
    assert program.process.returncode == 0


def test_a_second_loop_at_a_time_is_refused_in_one_line(running: Callable[..., Program]) -> None:
    said = running("import asyncio\nfirst = asyncio.new_event_loop()\nasyncio.new_event_loop()\n").output()
    assert said.startswith("mpserve: another event loop of this process has the device") and said.count("\n") == 1


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
        + ["-keyout", str(path), "-out", str(tmp_path / "public.pem")],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("needs openssl")
    path.write_text(path.read_text() + (tmp_path / "public.pem").read_text())
    return path


def test_tls(running: Callable[..., Program], certificate: Path) -> None:
    program = running(
        ECHO.replace("import asyncio", "import asyncio, ssl, sys", 1)
        .replace("async def main():", "async def main():\n        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)")
        .replace("server = await", "tls.load_cert_chain(sys.argv[1])\n        server = await")
        .replace('"0.0.0.0", 7000', '"0.0.0.0", 7000, ssl=tls'),
        str(certificate),
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connected(7000, program) as plain, context.wrap_socket(plain) as sock:
        assert echoes(sock, os.urandom(1 << 20))
    with connected(7000, program) as sock:
        sock.sendall(b"this is no handshake\n")
        read_all(sock)
    with connected(7000, program) as plain, context.wrap_socket(plain) as sock:
        assert echoes(sock, b"still there")
    program.output(signal.SIGTERM)


def test_uvicorn_with_fastapi(world: int) -> None:
    """The example, with curl and a WebSocket client over kernel sockets."""
    needs("uvicorn", "fastapi", "websockets")
    from websockets.sync.client import connect

    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--loop", "mpserve.asyncio:loop_factory"]
    with Program([*command, "--host", IP, "--port", "8000", "fastapi_app:app"], MPSERVE_IP=f"{IP}/24") as program:
        connected(8000, program).close()
        curl = ["curl", "-sS", "--noproxy", "*", "-m", "20"]
        done = subprocess.run([*curl, f"http://{IP}:8000/add/1/2"], capture_output=True, text=True, check=True)
        assert done.stdout == '{"sum":3}'
        done = subprocess.run([*curl, f"http://{IP}:8000/"], capture_output=True, text=True, check=True)
        assert done.stdout == f'{{"hello":"{KERNEL}"}}'
        with connect(f"ws://{IP}:8000/echo", proxy=None) as websocket:
            websocket.send("over the stack")
            assert websocket.recv() == "over the stack"
        said = program.output(signal.SIGINT)
        assert "Application shutdown complete" in said and "Traceback" not in said


def test_aiohttp_server_and_client(running: Callable[..., Program]) -> None:
    """The server on the stack; the client reaches, over the stack, a server of the kernel's in the same program."""
    needs("aiohttp")
    program = running("""
        import asyncio
        from aiohttp import ClientSession, web

        async def behind(request):
            return web.json_response({"from": request.remote, "body": await request.text()})

        async def proxy(request):
            async with request.app[session_key].post("http://10.31.8.1:9000/", data=await request.read()) as answer:
                return web.json_response(await answer.json())

        session_key = web.AppKey("session", ClientSession)

        async def serve(handler, host, port, session=None):
            app = web.Application(client_max_size=1 << 24)
            app[session_key] = session
            app.router.add_post("/", handler)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, host, port).start()

        async def main():
            await serve(behind, "10.31.8.1", 9000)
            async with ClientSession() as session:
                await serve(proxy, "10.31.8.2", 8000, session)
                await asyncio.Event().wait()

        asyncio.run(main())
    """)
    connected(8000, program).close()
    body = "z" * 200_000
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "-m", "20", "-d", "@-", f"http://{IP}:8000/"],
        input=body,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f'{{"from": "{IP}", "body": "{body}"}}'
    assert "Traceback" not in program.output(signal.SIGTERM)


def test_websockets_server_and_client(running: Callable[..., Program]) -> None:
    needs("websockets")
    program = running("""
        import asyncio
        from websockets.asyncio.client import connect
        from websockets.asyncio.server import serve

        async def echo(websocket):
            async for message in websocket:
                await websocket.send(message)

        async def main():
            async with serve(echo, "10.31.8.2", 8000), serve(echo, "10.31.8.1", 8001):
                async with connect("ws://10.31.8.1:8001", proxy=None) as out:
                    await out.send("out")
                    print(await out.recv(), out.local_address[0], flush=True)
                await asyncio.Event().wait()

        asyncio.run(main())
    """)
    from websockets.sync.client import connect

    connected(8000, program).close()
    with connect(f"ws://{IP}:8000", proxy=None, max_size=None) as websocket:
        for message in ("text", b"bytes", "long" * 100_000):
            websocket.send(message)
            assert websocket.recv() == message
    assert f"out {IP}" in program.output(signal.SIGTERM)


def test_a_redis_client(running: Callable[..., Program]) -> None:
    """redis.asyncio over the stack, to a server of four commands on the kernel's side."""
    needs("redis")
    program = running("""
        import asyncio, socket, threading
        import redis.asyncio

        def serve(listener):
            store = {}
            while True:
                sock, peer = listener.accept()
                threading.Thread(target=talk, args=(sock, store), daemon=True).start()

        def talk(sock, store):
            stream = sock.makefile("rwb")
            while head := stream.readline():
                words = []
                for _ in range(int(head[1:])):
                    length = int(stream.readline()[1:])
                    words.append(stream.read(length + 2)[:-2])
                name = words[0].upper()
                if name == b"SET":
                    store[words[1]] = words[2]
                    stream.write(b"+OK\\r\\n")
                elif name == b"GET":
                    value = store.get(words[1])
                    stream.write(b"$-1\\r\\n" if value is None else b"$%d\\r\\n%b\\r\\n" % (len(value), value))
                elif name == b"PING":
                    stream.write(b"+PONG\\r\\n")
                else:
                    stream.write(b"-ERR unknown command\\r\\n")
                stream.flush()

        async def main():
            listener = socket.create_server(("10.31.8.1", 6379))
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
            client = redis.asyncio.Redis(host="10.31.8.1", protocol=2)
            print(await client.ping())
            value = bytes(range(256)) * 1000
            await client.set("key", value)
            print(await client.get("key") == value, await client.get("none"))
            answers = await asyncio.gather(*(client.get("key") for _ in range(20)))
            print(all(answer == value for answer in answers))
            await client.aclose()
            print(asyncio.get_running_loop().worker.stats["connections_opened"] > 0)

        asyncio.run(main())
    """)
    said = program.output()
    assert said.splitlines() == ["True", "True None", "True", "True"], said


def test_an_async_handler_as_a_server(world: int, tmp_path: Path) -> None:
    """`mpserve run` of a handler with `handle`: served, stopped, with a thread and a timer inside."""
    from server import serving

    (tmp_path / "shout.py").write_text(
        textwrap.dedent("""
        import asyncio, time
        import mpserve

        class Shout(mpserve.Handler):
            async def handle(self, stream):
                async for line in stream:
                    await asyncio.sleep(0.01)
                    stream.write(await asyncio.to_thread(line.upper))
                    await stream.drain()
        """)
    )
    with serving("run", f"{tmp_path}/shout.py:Shout", "--ip", f"{IP}/24", "--listen", ":7000") as server:
        with socket.create_connection((IP, 7000), 10) as sock:
            sock.sendall(b"one\ntwo\n")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"ONE\nTWO\n"
        assert "Traceback" not in server.log
