"""The wire of the benchmark: two network namespaces joined by one veth pair. Nothing outside them is touched.

Every server gets a new pair of the same kind, so that no connection, neighbour or XDP program outlives its server.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

SERVER_CORE = 0
CLIENT_CORE = 1
PORT = 8000
PREFIX_LENGTH = 24
SERVER_ADDRESS = "10.88.0.2"
CLIENT_ADDRESS = "10.88.0.1"
URL = f"http://{SERVER_ADDRESS}:{PORT}/"


@dataclass(frozen=True)
class Wire:
    """Names of the namespaces and of the two ends of the pair."""

    server_namespace: str = "mpbench-server"
    client_namespace: str = "mpbench-client"
    server_end: str = "mpbench0"
    client_end: str = "mpbench1"

    def on_server(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` in the server's namespace, on its core."""
        return ["ip", "netns", "exec", self.server_namespace, "taskset", "-c", str(SERVER_CORE), *argv]

    def on_client(self, argv: list[str]) -> list[str]:
        """The command that runs `argv` in the client's namespace, on its core."""
        return ["ip", "netns", "exec", self.client_namespace, "taskset", "-c", str(CLIENT_CORE), *argv]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _remove(wire: Wire) -> None:
    for namespace in (wire.server_namespace, wire.client_namespace):
        subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


def _make(wire: Wire) -> None:
    for namespace in (wire.server_namespace, wire.client_namespace):
        _ip("netns", "add", namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")
    queues = ("numrxqueues", "1", "numtxqueues", "1")
    # fmt: off
    _ip("link", "add", wire.server_end, "netns", wire.server_namespace, *queues, "type", "veth",
        "peer", "name", wire.client_end, "netns", wire.client_namespace, *queues)
    # fmt: on
    _ip("-n", wire.client_namespace, "address", "add", f"{CLIENT_ADDRESS}/{PREFIX_LENGTH}", "dev", wire.client_end)
    _ip("-n", wire.client_namespace, "link", "set", wire.client_end, "up")
    _ip("-n", wire.server_namespace, "link", "set", wire.server_end, "up")
    # Tens of thousands of one-shot connections a second need all the ports there are.
    ports = "net.ipv4.ip_local_port_range=1024 65535"
    subprocess.run(wire.on_client(["sysctl", "-q", "-w", ports]), check=True, capture_output=True)


@contextlib.contextmanager
def veth_pair(kernel_address: bool) -> Iterator[Wire]:
    """A new wire. `kernel_address` gives the server's end its address in the kernel, for servers on kernel sockets."""
    wire = Wire()
    _remove(wire)
    try:
        _make(wire)
        if kernel_address:
            address = f"{SERVER_ADDRESS}/{PREFIX_LENGTH}"
            _ip("-n", wire.server_namespace, "address", "add", address, "dev", wire.server_end)
        yield wire
    finally:
        _remove(wire)
