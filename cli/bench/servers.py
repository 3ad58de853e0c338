"""The servers that are compared: how each is started, found ready and stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mpserve.cli.bench.protocols import BODY
from mpserve.cli.bench.wires import PREFIX_LENGTH, SERVER_ADDRESS, Wire
from mpserve.dataplane.errors import SetupError

READY_SECONDS = 60
STOP_SECONDS = 15
MODULES = ("uvloop", "uvicorn", "granian")

NGINX_CONF = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 8192; multi_accept on; }}
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 600;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {port} reuseport backlog=8192;
        location / {{ default_type text/plain; return 200 "{body}"; }}
    }}
}}
"""


@dataclass(frozen=True)
class Server:
    """`argv(wire, port)` gives the command. `needs` is a program or module that has to be installed, with its package."""

    name: str
    label: str
    protocol: str
    argv: Callable[[Wire, int], list[str]]
    is_ours: bool = False
    counts: bool = True  # whether one of ours keeps counters
    needs: tuple[str, str] | None = None

    @property
    def obstacle(self) -> str:
        """Why it can't be run here, "" if it can."""
        if self.needs is None:
            return ""
        name, package = self.needs
        found = importlib.util.find_spec(name) if name in MODULES else shutil.which(name)
        return "" if found else f"{self.label} is not installed: type {package}"


def _ours(*command: str) -> Callable[[Wire, int], list[str]]:
    program = [sys.executable, "-m", "mpserve.cli", *command]

    def argv(wire: Wire, port: int) -> list[str]:
        core = next(word for word in reversed(wire.server_prefix) if word.isdigit())
        settings = ["--device", wire.server_device, "--ip", f"{SERVER_ADDRESS}/{PREFIX_LENGTH}", "--cores", core]
        return [*program, *settings, "--listen", f":{port}"]

    return argv


def _protocol(protocol: str, loop: str) -> Callable[[Wire, int], list[str]]:
    return lambda wire, port: [sys.executable, "-m", "mpserve.cli.bench.protocols", protocol, loop, str(port)]


def _raw(wire: Wire, port: int) -> list[str]:
    return [sys.executable, "-m", "mpserve.apps.load.raw", wire.server_device]


def _uvicorn(wire: Wire, port: int) -> list[str]:
    quiet = ["--no-access-log", "--log-level", "critical"]
    return [
        sys.executable,
        "-m",
        "uvicorn",
        "mpserve.cli.bench.asgi:app",
        "--host",
        "0.0.0.0",
        "--port",
        str(port),
        *quiet,
    ]


def _granian(wire: Wire, port: int) -> list[str]:
    where = ["--host", "0.0.0.0", "--port", str(port), "--workers", "1", "--no-log"]
    return [sys.executable, "-m", "granian", "--interface", "asgi", "mpserve.cli.bench.asgi:app", *where]


def _nginx(wire: Wire, port: int) -> list[str]:
    conf = wire.folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=wire.folder, port=port, body=BODY.decode()))
    return ["nginx", "-c", str(conf)]


def _memcached(wire: Wire, port: int) -> list[str]:
    return ["memcached", "-u", "root", "-t", "1", "-m", "256", "-c", "8192", "-p", str(port), "-U", "0"]


_UVLOOP = ("uvloop", "pip install uvloop")
SERVERS = [
    Server("compiled", "mpserve, compiled", "echo", _ours("run", "mpserve.apps.echo_compiled:CompiledEcho"), True),
    Server("python", "mpserve, Python", "echo", _ours("run", "mpserve.apps.echo:Echo"), True),
    Server("raw", "raw frames", "raw", _raw, True, counts=False),
    Server("asyncio-echo", "asyncio Protocol", "echo", _protocol("echo", "asyncio")),
    Server("uvloop-echo", "uvloop Protocol", "echo", _protocol("echo", "uvloop"), needs=_UVLOOP),
    Server("fixed", "mpserve, fixed reply", "http", _ours("run", "mpserve.apps.http:FixedReply"), True),
    Server("http", "mpserve http", "http", _ours("http"), True),
    Server("nginx", "nginx", "http", _nginx, needs=("nginx", "apt-get install nginx-core")),
    Server("asyncio", "asyncio Protocol", "http", _protocol("http", "asyncio")),
    Server("uvloop", "uvloop Protocol", "http", _protocol("http", "uvloop"), needs=_UVLOOP),
    Server("granian", "granian, ASGI", "http", _granian, needs=("granian", "pip install granian")),
    Server("uvicorn", "uvicorn, ASGI", "http", _uvicorn, needs=("uvicorn", "pip install uvicorn")),
    Server("mpserve-memcached", "mpserve memcached", "memcached", _ours("memcached"), True),
    Server("memcached", "memcached -t 1", "memcached", _memcached, needs=("memcached", "apt-get install memcached")),
]


def find(name: str) -> Server:
    for server in SERVERS:
        if server.name == name:
            return server
    raise SetupError(f"no server is called {name!r}: there are {', '.join(server.name for server in SERVERS)}")


@contextlib.contextmanager
def running(server: Server, wire: Wire, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The server, listening; what it prints goes to a file. Raises SetupError if it doesn't come about."""
    log = wire.folder / "server.log"
    with log.open("wb") as output:
        # fmt: off
        process = subprocess.Popen([*wire.server_prefix, *server.argv(wire, port)], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, start_new_session=True, cwd=wire.folder)
        # fmt: on
    try:
        _wait_until_ready(server, process, wire, port, log)
        yield process
    finally:
        _stop(process)


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], wire: Wire, port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SetupError(f"{server.label} exited with status {process.returncode}: {_tail(log)}")
        if b"\nserving " in b"\n" + log.read_bytes() if server.is_ours else _listens(wire, port):
            return
        time.sleep(0.05)
    raise SetupError(f"{server.label} was not ready in {READY_SECONDS} s: {_tail(log)}")


def _listens(wire: Wire, port: int) -> bool:
    """Whether a kernel socket listens there, in the server's namespace."""
    argv = [*wire.server_prefix, "cat", "/proc/net/tcp", "/proc/net/tcp6"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()
    return any(f":{port:04X} " in line and " 0A " in line for line in lines)


def _tail(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split()[-40:]) or "(it printed nothing)"


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
