"""A server with nothing to do sleeps, wakes for the first byte, and spins only if it is told to."""

import socket
import time

import pytest
from namespaces import borrowed_pair, inside
from server import Server, cpu_seconds, serving

pytestmark = [pytest.mark.root, pytest.mark.dpdk]

IP = "10.31.5.2"
SETTINGS = ("--ip", f"{IP}/24")
IDLE_SECONDS = 2.0


def idle_share(server: Server) -> float:
    """The worker's share of a core while nothing happens."""
    worker = server.worker
    before, since = cpu_seconds(worker), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (cpu_seconds(worker) - before) / (time.monotonic() - since)


def first_byte_ms(connection: socket.socket) -> float:
    """The time of one echo, in milliseconds."""
    since = time.perf_counter()
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    return (time.perf_counter() - since) * 1e3


def measure(device: str, server: Server, capsys: pytest.CaptureFixture[str]) -> float:
    """The share while idle, with a connection open; a first byte after each of two idle seconds. Prints both."""
    with socket.create_connection((IP, 7), 20) as connection:
        first_byte_ms(connection)
        share, first = idle_share(server), []
        for _ in range(2):
            time.sleep(1)
            first.append(first_byte_ms(connection))
    with capsys.disabled():
        times = ", ".join(f"{ms:.2f}" for ms in sorted(first))
        print(f"\n{device}: {share:.1%} of a core while idle; first byte after 1 s idle: {times} ms")
    return share


@pytest.mark.parametrize("device", ["veth", "veth,driver=af_packet", "tap", "af_packet:mpstidle", "af_xdp:mpstidle"])
def test_an_idle_server_sleeps(world: int, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    if ":" not in device:
        with serving("echo", "--device", device, *SETTINGS) as server:
            assert measure(device, server, capsys) < 0.05
            assert server.counters["sleeps"] > 0
        return
    with borrowed_pair("mpstidle", "mpstpeer", "10.31.5.1/24") as pair:
        with serving("echo", "--device", device, *SETTINGS) as server, inside(pair):
            assert measure(device, server, capsys) < 0.05
            assert server.counters["sleeps"] > 0


def test_a_server_without_a_descriptor_naps(world: int, capsys: pytest.CaptureFixture[str]) -> None:
    with serving("echo", "--device", "ring", *SETTINGS) as server:
        share = idle_share(server)
        with capsys.disabled():
            print(f"\nring: {share:.1%} of a core while idle")
        assert share < 0.2
        assert server.counters["sleeps"] > 0


def test_busy_poll_spins(world: int, capsys: pytest.CaptureFixture[str]) -> None:
    with serving("echo", "--busy-poll", *SETTINGS) as server:
        measure("veth --busy-poll", server, capsys)
        before = server.counters
        time.sleep(1)
        after = server.counters
        assert after["sleeps"] == before["sleeps"]
        assert after["turns"] - before["turns"] > 1000
