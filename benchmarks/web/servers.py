"""The servers that are compared: how each is started, found ready and stopped. All answer GET / with a 64-byte body."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.web.wire import PORT, PREFIX_LENGTH, SERVER_ADDRESS, URL, Wire
from mpserve.cli.bench.protocols import BODY
from mpserve.cli.bench.servers import NGINX_CONF

READY_S = 60  # `warm` has compiled


class ServerFailed(Exception):
    """A server that did not start, or stopped answering; the message holds the end of its output."""


@dataclass(frozen=True)
class Server:
    """`argv(wire, directory)` gives the command; `directory` is empty and the server's own."""

    name: str
    label: str
    argv: Callable[[Wire, Path], list[str]]
    kernel_sockets: bool = True


def nginx(wire: Wire, directory: Path) -> list[str]:
    conf = directory / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=directory, port=PORT, body=BODY.decode()))
    return ["nginx", "-c", str(conf)]


def protocol(loop: str) -> Callable[[Wire, Path], list[str]]:
    return lambda wire, directory: [sys.executable, "-m", "mpserve.cli.bench.protocols", "http", loop, str(PORT)]


def _mpserve(driver: str, wire: Wire) -> list[str]:
    program = str(Path(sys.executable).with_name("mpserve"))
    where = ["--device", f"{driver}:{wire.server_end}", "--ip", f"{SERVER_ADDRESS}/{PREFIX_LENGTH}"]
    return [program, "{command}", *where, "--listen", f":{PORT}"]


def fixed_reply(driver: str) -> Callable[[Wire, Path], list[str]]:
    def argv(wire: Wire, directory: Path) -> list[str]:
        program, _, *options = _mpserve(driver, wire)
        return [program, "run", "mpserve.apps.http:FixedReply", *options]

    return argv


def http_handler(driver: str) -> Callable[[Wire, Path], list[str]]:
    def argv(wire: Wire, directory: Path) -> list[str]:
        (directory / "index.html").write_bytes(BODY)
        program, _, *options = _mpserve(driver, wire)
        return [program, "http", "--root", str(directory), *options]

    return argv


SERVERS = [
    Server("mpserve-xdp", "mpserve, fixed reply, af_xdp", fixed_reply("af_xdp"), kernel_sockets=False),
    Server("mpserve-packet", "mpserve, fixed reply, af_packet", fixed_reply("af_packet"), kernel_sockets=False),
    Server("mpserve-http-xdp", "mpserve http, af_xdp", http_handler("af_xdp"), kernel_sockets=False),
    Server("mpserve-http-packet", "mpserve http, af_packet", http_handler("af_packet"), kernel_sockets=False),
    Server("nginx", "nginx", nginx),
    Server("uvloop", "uvloop Protocol", protocol("uvloop")),
    Server("asyncio", "asyncio Protocol", protocol("asyncio")),
]


def warm() -> None:
    """Compile our stack, on all cores; a server in the rounds has one only. Raises ServerFailed if that fails."""
    done = subprocess.run([str(Path(sys.executable).with_name("mpserve")), "warm"], check=False)
    if done.returncode:
        raise ServerFailed(f"mpserve warm exited with status {done.returncode}")


def _answers(wire: Wire) -> bool:
    # fmt: off
    asked = subprocess.run(wire.on_client(["curl", "-s", "--max-time", "1", URL]), capture_output=True, check=False)
    # fmt: on
    if asked.stdout and len(asked.stdout) != len(BODY):
        raise ServerFailed(f"answers {asked.stdout[:80]!r} where {len(BODY)} bytes were expected")
    return asked.stdout == BODY or len(asked.stdout) == len(BODY)


def _tail(log: Path) -> str:
    return " ".join(log.read_text(errors="replace").split()[-40:]) or "(it printed nothing)"


def _wait_ready(process: subprocess.Popen[bytes], wire: Wire, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"exited with status {process.returncode}: {_tail(log)}")
        if _answers(wire):
            return
        time.sleep(0.1)
    raise ServerFailed(f"gave no answer in {READY_S} s: {_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running(server: Server, wire: Wire, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server, answering; its output goes to a file in `directory`.

    Raises:
        ServerFailed: it exited, answered something else, or gave no answer in READY_S seconds.
    """
    work = directory / server.name
    work.mkdir(exist_ok=True)
    work.chmod(0o755)
    argv = wire.on_server(server.argv(wire, work))
    log = directory / f"{server.name}.log"
    with log.open("wb") as output:
        # fmt: off
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        # fmt: on
    try:
        _wait_ready(process, wire, log)
        yield process
    finally:
        _stop(process)
