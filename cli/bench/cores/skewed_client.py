"""Short connections at a pace, all of which arrive at queue 0: `python -m mpserve.cli.bench.cores.skewed_client --help`.

Each sends one request, takes its reply and closes. They begin when they are due, answered or not (open loop), and latency
counts from then. Prints `measuring` when the warm-up is over, and a line of JSON at the end.
"""

import argparse
import gc
import json
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from mpserve.dataplane import flow_hash

FIRST_PORT, PORTS = 1024, 64_512
REQUEST = b"r" * 64


def ports_to(queue: int, queues: int, source: str, server: tuple[str, int]) -> Iterator[int]:
    """The source ports of connections to `server` whose frames arrive at `queue`.

    The hash is linear: that of a port is that of port 0 with what each bit of the port adds.
    """
    nothing = bytes(4)
    fixed = flow_hash.toeplitz(socket.inet_aton(source), socket.inet_aton(server[0]), 0, server[1])
    added = [flow_hash.toeplitz(nothing, nothing, 1 << bit, 0) for bit in range(16)]
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        hashed = fixed
        for bit, change in enumerate(added):
            hashed ^= change if port >> bit & 1 else 0
        if hashed % flow_hash.ENTRIES % queues == queue:
            yield port


class SkewedClient:
    """`rate` connections a second for `warm_up` and then `seconds`; those of the latter count, `patience` seconds long."""

    def __init__(self, source: str, server: tuple[str, int], ports: list[int], options: argparse.Namespace) -> None:
        self.source, self.server, self.ports = source, server, ports
        self.rate, self.warm_up, self.seconds, self.patience = (
            options.rate,
            options.warm_up,
            options.seconds,
            options.patience,
        )
        self.poller = select.epoll()
        self.open: dict[int, tuple[socket.socket, float]] = {}  # by descriptor: the socket, when it was due
        self.ended: list[tuple[float, float, bool]] = []  # when due, how long it took, whether it was answered
        self.latest = 0.0  # how far behind its pace this process was at worst

    def run(self) -> dict[str, Any]:
        self.begun = time.monotonic()
        self._until(self.begun + self.warm_up)
        print("measuring", flush=True)
        worked = time.process_time()
        self._until(self.begun + self.warm_up + self.seconds)
        worked = time.process_time() - worked
        print("measured", flush=True)
        self._wait(time.monotonic() + self.patience)
        return self._result(worked / self.seconds)

    def _until(self, end: float) -> None:
        """Open what is due, and serve what is open."""
        while (now := time.monotonic()) < end:
            due = self.begun + self.opened / self.rate
            while due <= now and due < end:
                self._connect(due)
                due = self.begun + self.opened / self.rate
            self._serve(min(due, end) - now)

    def _wait(self, end: float) -> None:
        """For the last replies."""
        while self.open and (now := time.monotonic()) < end:
            self._serve(end - now)

    @property
    def opened(self) -> int:
        return len(self.open) + len(self.ended)

    def _connect(self, due: float) -> None:
        self.latest = max(self.latest, time.monotonic() - due)
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.source, self.ports[self.opened]))
        sock.connect_ex(self.server)
        self.open[sock.fileno()] = (sock, due)
        self.poller.register(sock.fileno(), select.EPOLLOUT)

    def _serve(self, longest: float) -> None:
        for descriptor, events in self.poller.poll(max(longest, 0)):
            sock, due = self.open[descriptor]
            if events & (select.EPOLLERR | select.EPOLLHUP):
                self._end(descriptor, sock, due, False)
            elif events & select.EPOLLOUT:
                sock.send(REQUEST)
                self.poller.modify(descriptor, select.EPOLLIN)
            else:
                self._end(descriptor, sock, due, self._is_answered(sock))

    @staticmethod
    def _is_answered(sock: socket.socket) -> bool:
        try:
            return sock.recv(4096) == REQUEST
        except ConnectionError:
            return False

    def _end(self, descriptor: int, sock: socket.socket, due: float, answered: bool) -> None:
        self.ended.append((due, time.monotonic() - due, answered))
        del self.open[descriptor]
        sock.close()

    def _result(self, busy: float) -> dict[str, Any]:
        """Of what was due in the time that is measured; an unanswered one has waited until now."""
        start, now = self.begun + self.warm_up, time.monotonic()
        end = start + self.seconds
        latencies = sorted(
            [took for due, took, answered in self.ended if answered and due >= start]
            + [now - due for _, due in self.open.values() if due >= start]
        )
        replies = sum(answered and start <= due + took < end for due, took, answered in self.ended)
        found: dict[str, Any] = {
            "due": sum(due >= start for due, _, _ in self.ended) + sum(due >= start for _, due in self.open.values()),
            "failed": sum(not answered for _, _, answered in self.ended),
            "unanswered": len(self.open),
            "replies_per_second": replies / self.seconds,
            "busy": busy,
            "latest_ms": 1e3 * self.latest,
        }
        return found | {f"p{p}_ms": 1e3 * percentile(latencies, p) for p in (50, 99)}


def percentile(ordered: list[float], percent: int) -> float:
    """NaN of nothing."""
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] if ordered else float("nan")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="the address to connect from")
    parser.add_argument("server", help="ADDRESS:PORT, of a server with --queues queues")
    parser.add_argument("--queues", type=int, default=2)
    parser.add_argument("--rate", type=float, required=True, help="connections a second")
    parser.add_argument("--warm-up", type=float, default=3.0)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--patience", type=float, default=2.0)
    return parser.parse_args()


def main() -> int:
    options = _parse()
    address, _, port = options.server.partition(":")
    server = (address, int(port))
    wanted = int(options.rate * (options.warm_up + options.seconds)) + 2  # each once: the last one's end is remembered
    ports = [port for port, _ in zip(ports_to(0, options.queues, options.source, server), range(wanted), strict=False)]
    if len(ports) < wanted:
        print(f"{wanted} connections take more ports than queue 0 has: {len(ports)}; less time", file=sys.stderr)
        return 2
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.disable()
    try:
        print(json.dumps(SkewedClient(options.source, server, ports, options).run()), flush=True)
    except KeyboardInterrupt:  # of whoever started this one, who says it
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
