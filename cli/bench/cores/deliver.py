"""`deliver`: of the frames that two workers receive on connections they opened, how many come to the core that opened it."""

import contextlib
import socketserver
import threading
import time
from collections.abc import Iterator

from mpserve.cli.bench.cores.lane import Sample
from mpserve.cli.bench.cores.network import PEER_IP, own_network, two_workers
from mpserve.cli.bench.spread import Spread
from mpserve.dataplane.errors import SetupError
from mpserve.framework.server import Server

CALLS = 500  # of each worker
LONGEST_SECONDS = 60.0
COUNTED = "rx_frames steered_out steered_arp connections_opened connections_closed retransmits drop_steer_full".split()


class EchoRequest(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(4096):
                self.request.sendall(data)


class KernelEcho(socketserver.ThreadingTCPServer):
    """Over kernel sockets, on any port."""

    request_queue_size, daemon_threads = 1024, True


@contextlib.contextmanager
def kernel_echo() -> Iterator[int]:
    """An echo server in this network namespace; its port."""
    with KernelEcho(("", 0), EchoRequest) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def measure(rounds: int, calls: int = CALLS) -> Iterator[Sample]:
    """With and without the choice of port, taking turns."""
    for number in range(rounds):
        for deliver in (True, False):
            for row in run(deliver, calls):
                yield {"round": number, "deliver": deliver} | row


def run(deliver: bool, calls: int, after: float = 1.0) -> list[Sample]:
    """A row a worker, once every connection is over."""
    with own_network(), kernel_echo() as port:
        options = {"host": PEER_IP, "port": port, "calls": calls, "after": after}
        limits = {"receive_flow_deliver": deliver}
        with two_workers("Caller", options=options, limits=limits) as server:
            _wait_until_over(server, calls)
            return _rows(server.stats())


def _rows(stats: list[dict[str, int]]) -> list[Sample]:
    """With what each of two has sent on to the other (`away`) and got from it (`got`); ARP replies, which all get, left out."""
    rows = [{"core": row["core"]} | {name: row[name] for name in COUNTED} for row in stats]
    for row in rows:
        row["away"] = row["steered_out"] - row["steered_arp"]
    for row, other in zip(rows, reversed(rows), strict=True):
        row["got"] = other["away"]
    return rows


def _wait_until_over(server: Server, calls: int) -> None:
    until = time.monotonic() + LONGEST_SECONDS
    while any(row["connections_closed"] < calls for row in server.stats()):
        if time.monotonic() > until:
            closed = [row["connections_closed"] for row in server.stats()]
            raise SetupError(f"{closed} connections of {calls} each were over after {LONGEST_SECONDS:.0f} s")
        time.sleep(0.05)


def home(sample: Sample) -> float:
    """Of the frames of a worker's connections, those that arrived at its core."""
    own = sample["rx_frames"] - sample["away"]
    return float(own / max(own + sample["got"], 1))


HEAD = ("receive flow deliver", "core", "connections", "frames received", "sent on", "at home, %")


def rows(samples: list[Sample]) -> list[list[str]]:
    shown = []
    for deliver in (True, False):
        for core in dict.fromkeys(s["core"] for s in samples):
            found = [s for s in samples if (s["deliver"], s["core"]) == (deliver, core)]
            if found:
                counted = ("connections_opened", "rx_frames", "away")
                cells = [Spread.of(s[name] for s in found).text() for name in counted]
                share = Spread.of(100 * home(s) for s in found).text()
                shown.append(["on" if deliver else "off", str(core), *cells, share])
    return shown
