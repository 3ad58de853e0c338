"""Ways to run a server: published, without root, recorded, replayed, behind a gateway, on two ports, with options."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from namespaces import borrowed_pair, inside
from server import serving

from mpserve.dataplane import jit

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

IP = "10.31.6.2"
SETTINGS = ("--ip", f"{IP}/24")
NOBODY = 65534


def curl(url: str, *more: str) -> str:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    done = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "-m", "30", *more, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_published(world: int) -> None:
    """Through the relay, large answers and half-closes included."""
    with serving("http", "--publish", "127.0.0.1:8731", *SETTINGS, urls=2) as server:
        assert server.urls == [f"http://{IP}/", "http://127.0.0.1:8731/"]
        for url in server.urls:
            assert "<title>mpserve</title>" in curl(url)
        with socket.create_connection(("127.0.0.1", 8731), 30) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            assert connection.makefile("rb").read().endswith(b"</html>\n")


AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
WITHOUT_CAPABILITIES = ["setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all"]  # setfcap: to map root to root


@pytest.fixture
def unprivileged(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """mpserve as another user, or as this one without capabilities where others may not run this Python; the environment
    in which what is compiled already is at hand."""
    environment = {"MPSERVE_CACHE_DIR": str(tmp_path / "cache"), "HOME": str(tmp_path), "XDG_RUNTIME_DIR": ""}
    for unit in jit.units():
        if unit.is_cached():
            shutil.copytree(unit.folder, tmp_path / "cache" / unit.folder.name)
    reasons = []
    for user, prefix in ((NOBODY, AS_NOBODY), (0, WITHOUT_CAPABILITIES)):
        for path in [tmp_path, *tmp_path.rglob("*")]:
            os.chown(path, user, user)
        probe = [
            *prefix,
            "unshare",
            "--user",
            "--map-root-user",
            "--net",
            sys.executable,
            "-c",
            "import mpserve, pydpdk",
        ]
        done = subprocess.run(probe, env=os.environ | environment, cwd="/", capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return [*prefix, sys.executable, "-m", "mpserve.cli"], environment
        reasons += done.stderr.strip().splitlines()[-1:]
    pytest.skip(f"needs setpriv and user namespaces: {'; '.join(reasons)}")


def no_capabilities_out_here(pid: int) -> bool:
    """Whether a process lives in a user namespace of its own: what it may do, it may do there."""
    return os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")


@pytest.mark.parametrize("device", ["veth", "tap"])
def test_without_root(world: int, device: str, unprivileged: tuple[list[str], dict[str, str]]) -> None:
    program, environment = unprivileged
    settings = ["--device", device, "--publish", "127.0.0.1:8732", *SETTINGS]
    with serving("http", *settings, program=program, environment=environment) as server:
        assert server.urls == ["http://127.0.0.1:8732/"]
        assert all(no_capabilities_out_here(pid) for pid in [server.pid, server.worker])
        assert "<title>mpserve</title>" in curl(server.urls[0])
        server.stop(signal.SIGTERM)


def test_without_root_and_without_publish_is_refused(
    world: int, unprivileged: tuple[list[str], dict[str, str]]
) -> None:
    program, environment = unprivileged
    done = subprocess.run(
        [*program, "http", *SETTINGS],
        env=os.environ | environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "--publish" in done.stderr or "sudo" in done.stderr, done.stderr


Frame = tuple[float, bytes]


def read_pcap(path: Path) -> list[Frame]:
    """(seconds, bytes) of each frame of a capture written on this machine: in microseconds by us, in nanoseconds by DPDK."""
    data, frames = path.read_bytes(), []
    magic, _, _, _, _, _, link = struct.unpack_from("<IHHiIII", data)
    assert magic in (0xA1B2C3D4, 0xA1B23C4D) and link == 1
    unit = 1e-6 if magic == 0xA1B2C3D4 else 1e-9
    at = 24
    while at < len(data):
        seconds, fraction, length, _ = struct.unpack_from("<IIII", data, at)
        frames.append((seconds + fraction * unit, data[at + 16 : at + 16 + length]))
        at += 16 + length
    return frames


def tcp_flags(frame: bytes) -> int:
    """Of a TCP segment over IPv4 without options; -1 for anything else."""
    return frame[47] if frame[12:15] == b"\x08\0\x45" and frame[23] == 6 else -1


def is_arp(frame: bytes, operation: int) -> bool:
    return frame[12:14] == b"\x08\x06" and frame[20:22] == bytes([0, operation])


@pytest.fixture(scope="module")
def recorded(world: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A recorded session of curl, and the server's Ethernet address in it."""
    path = tmp_path_factory.mktemp("recorded") / "all.pcap"
    with serving("http", "--record", str(path), *SETTINGS) as server:
        assert "<title>mpserve</title>" in curl(server.urls[0])
        mac = server.said.split(", ")[2]
    return path, mac


def test_a_recording_is_whole(recorded: tuple[Path, str]) -> None:
    path, mac = recorded
    frames = read_pcap(path)
    times = [time for time, _ in frames]
    assert times == sorted(times)
    ours = bytes.fromhex(mac.replace(":", ""))
    sent, received = ([f for _, f in frames if f[at : at + 6] == ours] for at in (6, 0))
    assert [f for f in received if tcp_flags(f) == 0x02] and [f for f in sent if tcp_flags(f) == 0x12]
    assert any(b"GET / HTTP/1.1" in f for f in received)
    assert any(b"HTTP/1.1 200 OK" in f and f.endswith(b"</html>\n") for f in sent)


def test_tcpdump_reads_a_recording(recorded: tuple[Path, str]) -> None:
    if shutil.which("tcpdump") is None:
        pytest.skip("needs tcpdump")
    command = ["tcpdump", "-nvvr", str(recorded[0]), "tcp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{IP}.80: Flags [S]" in done.stdout and "HTTP/1.1 200 OK" in done.stdout
    ours = [line for line in done.stdout.splitlines() if line.startswith(f"    {IP}.80 > ")]
    assert ours and all("(correct)" in line for line in ours)


def test_a_recorded_session_replayed(recorded: tuple[Path, str], world: int, tmp_path: Path) -> None:
    """Numbers on our side are new, so the handshake is answered and what acknowledges the old numbers is reset."""
    path, mac = recorded
    replies = tmp_path / "out.pcap"
    with serving("http", "--device", f"pcap:{path},{replies},mac={mac}", *SETTINGS) as server:
        assert server.counters["drop_tcp_checksum"] == 0
    frames = [frame for _, frame in read_pcap(path)]
    answers = [frame for _, frame in read_pcap(replies)]
    ours = bytes.fromhex(mac.replace(":", ""))
    asked = sum(is_arp(frame, 1) and frame[6:12] != ours for frame in frames)
    assert asked and sum(is_arp(frame, 2) for frame in answers) == asked
    (syn,) = (frame for frame in frames if tcp_flags(frame) == 0x02)
    syn_acks = [frame for frame in answers if tcp_flags(frame) == 0x12]
    assert syn_acks and all(answer[:6] == syn[6:12] and answer[34:38] == syn[36:38] + syn[34:36] for answer in syn_acks)
    (number,) = struct.unpack_from(">I", syn, 38)
    assert {struct.unpack_from(">I", answer, 42)[0] for answer in syn_acks} == {(number + 1) & 0xFFFFFFFF}
    assert any(tcp_flags(answer) & 0x04 for answer in answers)


@pytest.mark.parametrize("way", [("--gateway", "10.31.6.1"), ("--route", "10.31.77.0/24,10.31.6.1")])
def test_a_gateway_or_a_route_reaches_other_subnets(world: int, way: tuple[str, str]) -> None:
    """Clients of another subnet, behind a router whose only word for the server is ARP."""
    with borrowed_pair("mpstgate", "mpstpeer", "10.31.6.1/24") as pair:
        with contextlib.ExitStack() as stack:
            settings = ["--device", "af_packet:mpstgate", *way, *SETTINGS]
            server = stack.enter_context(serving("http", *settings))
            stack.enter_context(inside(pair))
            for command in ("link set lo up", "address add 10.31.77.7/32 dev lo"):
                subprocess.run(["ip", *command.split()], check=True)
            assert "<title>mpserve</title>" in curl(server.urls[0], "--interface", "10.31.77.7")
            subprocess.run(["ip", "neigh", "flush", "all"], check=True)
            assert "<title>mpserve</title>" in curl(server.urls[0], "--interface", "10.31.77.7")


def test_two_ports_options_and_limits(world: int, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(
        "import mpserve\n\n\n"
        "class Hello(mpserve.Handler):\n"
        "    greeting: str = 'hello'\n"
        "    times: int = 1\n\n"
        "    def on_accept(self, sock):\n"
        "        sock.write(f'{self.greeting * self.times} {sock.listener[1]} {sock.peername[0]}'.encode())\n"
        "        sock.close()\n"
    )
    settings = ["--listen", ":7001", "--listen", f"{IP}:7002", "--set", "greeting=ho", "--set", "times=3"]
    with serving(
        "run", "hello.py:Hello", *settings, *SETTINGS, "--max-connections", "8", folder=tmp_path, urls=2
    ) as server:
        assert server.urls == [f"tcp://{IP}:7001", f"tcp://{IP}:7002"]
        for port in (7001, 7002):
            with socket.create_connection((IP, port), 20) as connection:
                assert connection.makefile("rb").read() == f"hohoho {port} 10.31.6.1".encode()


def test_memcached_with_a_real_client(world: int) -> None:
    pymemcache = pytest.importorskip("pymemcache", reason="needs pymemcache")
    with serving("memcached", "-m", "32", *SETTINGS):
        client = pymemcache.Client((IP, 11211), timeout=20)
        large = bytes(range(256)) * 3000
        assert client.set("a", b"1", noreply=False) and client.set("large", large, noreply=False)
        assert client.get("large") == large
        assert client.incr("a", 41) == 42 and client.get("a") == b"42"
        assert not client.add("a", b"2", noreply=False)
        value, token = client.gets("a")
        assert value == b"42" and client.cas("a", b"43", token) is True and client.cas("a", b"44", token) is False
        many = {f"key{i}": str(i).encode() for i in range(500)}
        assert client.set_many(many, noreply=False) == []
        assert client.get_many(list(many)) == many
        assert client.delete("a", noreply=False) and client.get("a") is None
        assert client.stats()[b"cmd_get"] and client.version()
        client.flush_all(noreply=False)
        assert client.get("large") is None
        client.quit()


def test_echo_of_more_than_the_buffers_hold(world: int) -> None:
    """The peer writes as long as it can before it reads anything: windows close both ways, and nothing is lost."""
    data = os.urandom(8 << 20)
    with serving("echo", *SETTINGS), socket.create_connection((IP, 7), 1) as connection:
        sent, echoed = 0, bytearray()
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                sent += connection.send(data[sent : sent + 65536])
        assert sent < len(data), "nothing ever filled up"
        connection.settimeout(30)

        def write_the_rest() -> None:
            connection.sendall(data[sent:])
            connection.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write_the_rest)
        writer.start()
        while part := connection.recv(1 << 18):
            echoed += part
        writer.join()
        assert echoed == data
