"""`memif_peer.py SOCKET QUEUES SERVER-IP SERVER-MAC`: TCP clients at the far end of a server's memif, in one process.

Says `ready` when the link is up. Lines of JSON on stdin, an answer each:
{"connect": N, "port": P, "place": HOW}   N more connections; HOW says on which queue a flow's frames are sent:
                                          hash: on one, by its port, as a NIC or a switch would
                                          first: all flows on the first queue
                                          wander: a flow's next frame on the next queue
{"ask": WORD}                             every open connection sends WORD and a line's end, and waits for a line
{"close": true}                           all are closed, and waited for
The answer: "lines", one a connection in the order they were opened ("" where it was reset), "queues", on which queue the last
line came, "open", how many are open still.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from memif_client import Wire, connect

from mpserve.testing.client import Client
from mpserve.testing.segment import Segment, address, arp_reply, parse_tcp

CLIENT_IP = "10.31.12.1"
CLIENT_MAC = b"\x02\0\0\0\0\x99"
PATIENCE_SECONDS = 20.0
TICK_SECONDS = 0.3  # until what is not acknowledged is sent again


class Flow:
    """A connection, what it has received of a line, and the queue that its last frame came on."""

    def __init__(self, peer: "Peer", port: int, local_port: int, place: str) -> None:
        self.peer, self.place, self.number = peer, place, local_port
        self.line, self.queue = b"", -1
        self.client = Client(self._transmit, local=(CLIENT_IP, local_port), remote=(peer.ip, port))

    def _transmit(self, segment: Segment) -> None:
        if self.place == "wander":
            self.number += 1
        queue = 0 if self.place == "first" else self.number % self.peer.wire.queues
        self.peer.wire.send(queue, segment.frame(self.peer.mac, CLIENT_MAC))  # what finds no room is sent again

    @property
    def has_answered(self) -> bool:
        return self.line.endswith(b"\n") or self.client.was_reset


class Peer:
    """All connections of this process to the server."""

    def __init__(self, wire: Wire, ip: str, mac: bytes) -> None:
        self.wire, self.ip, self.mac = wire, ip, mac
        self.flows: dict[int, Flow] = {}
        self._next_port = 20_000

    def connect(self, count: int, port: int, place: str) -> None:
        made = []
        for _ in range(count):
            self._next_port += 1
            made.append(Flow(self, port, self._next_port, place))
            self.flows[self._next_port] = made[-1]
            self._poll()
        self._until(lambda: all(flow.client.established or flow.client.was_reset for flow in made))

    def ask(self, word: bytes) -> None:
        for flow in self.flows.values():
            flow.line = b""
            flow.client.send(word + b"\n")
            self._poll()
        self._until(lambda: all(flow.has_answered for flow in self.flows.values()))

    def close(self) -> None:
        for flow in self.flows.values():
            flow.client.close()
            self._poll()
        self._until(lambda: all(flow.client.closed for flow in self.flows.values()))
        self.flows = {}

    def forget_reset(self) -> None:
        self.flows = {port: flow for port, flow in self.flows.items() if not flow.client.was_reset}

    def _until(self, holds: Callable[[], bool]) -> None:
        """Go on until that holds; whoever asked sees if it never did."""
        now = time.monotonic()
        deadline, tick_at = now + PATIENCE_SECONDS, now + TICK_SECONDS
        while not holds() and now < deadline:
            self._poll()
            if now >= tick_at:
                tick_at = now + TICK_SECONDS
                for flow in self.flows.values():
                    flow.client.tick(now)
            time.sleep(0.0005)
            now = time.monotonic()

    def _poll(self) -> None:
        for queue in range(self.wire.queues):
            for frame in self.wire.receive(queue):
                self._arrives(frame, queue)

    def _arrives(self, frame: bytes, queue: int) -> None:
        if frame[12:14] == b"\x08\x06":
            if frame[21] == 1 and frame[38:42] == address(CLIENT_IP):
                self.wire.send(queue, arp_reply(CLIENT_MAC, CLIENT_IP, self.mac, self.ip))
            return
        segment = parse_tcp(frame)
        flow = self.flows.get(segment.dport) if segment is not None else None
        if segment is not None and flow is not None:
            flow.queue = queue
            flow.client.arrives(segment, time.monotonic())
            flow.line += flow.client.recv()


def obey(peer: Peer, order: dict[str, Any]) -> dict[str, Any]:
    if "connect" in order:
        peer.connect(order["connect"], order["port"], order["place"])
    elif "ask" in order:
        peer.ask(order["ask"].encode())
    else:
        peer.close()
    flows = list(peer.flows.values())
    lines = ["" if flow.client.was_reset else flow.line.decode() for flow in flows]
    peer.forget_reset()
    return {"lines": lines, "queues": [flow.queue for flow in flows], "open": len(peer.flows)}


def main(path: str, queues: str, ip: str, mac: str) -> None:
    peer = Peer(connect(path, int(queues)), ip, bytes.fromhex(mac.replace(":", "")))
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(peer, json.loads(line))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
