"""`Host`: a handler on the real stack, on a virtual wire, in virtual time. No root, no NIC, no DPDK, no sleep."""

from __future__ import annotations

import logging
from typing import Any

from mpserve.dataplane.impair_grammar import Faults, Impairment
from mpserve.dataplane.layout import NEVER
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.switchboard import Seat
from mpserve.framework.aio.streams import make_worker
from mpserve.framework.handler import Handler
from mpserve.testing.client import Client
from mpserve.testing.segment import BadFrame, Segment, arp_reply, parse_tcp
from mpserve.testing.wire import Wire

CLIENT_MAC = b"\x02\x00\x00\x00\x00\x01"
STEP_SECONDS = 0.001


class Host:
    """Serves `handler` at 10.9.0.2, on a wire with the same faults in both directions, drawn by `seed`.

    `loss` (`burst` frames in a row on average), `duplication`, `reordering` and `corrupt` are shares (0 to 1) of frames,
    `delay` and `jitter` are seconds, `rate` is bit/s, `path_mtu` bytes: `docs/impair.md` says what each does.

    With port 0 the handler listens nowhere.

    Keyword arguments that Limits knows (max_connections, sndbuf_bytes ...) are the core's bounds.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        port: int = 7,
        ip: str = "10.9.0.2",
        mtu: int = 1500,
        loss: float = 0.0,
        burst: float = 0.0,
        duplication: float = 0.0,
        reordering: float = 0.0,
        corrupt: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        rate: int = 0,
        path_mtu: int = 0,
        seed: int = 0,
        log: logging.Logger | None = None,
        seat: Seat | None = None,
        **limits: Any,
    ) -> None:
        self.handler, self.ip, self.port = handler, ip, port
        self.far = "10.9.0.1"  # where clients are
        faults = Faults(
            loss=loss,
            burst=burst,
            reorder=reordering,
            duplicate=duplication,
            corrupt=corrupt,
            delay_us=round(delay * 1e6),
            jitter_us=round(jitter * 1e6),
            rate=rate,
            mtu=path_mtu,
        )
        self._corrupts = corrupt > 0
        self._wire = Wire(mtu=mtu)
        self.worker = make_worker(
            handler,
            self._wire,
            virtual=True,
            ip=ip,
            listen=[("", port)] if port else [],
            limits=Limits(**limits),
            idle_spin_us=0,
            log=log,
            impairment=None if faults == Faults() else Impairment(faults, faults, seed),
            seat=seat,
        )
        self._clients: dict[tuple[str, int], Client] = {}
        self._listening: dict[tuple[str, int], list[Client]] = {}
        self._accepted: dict[tuple[str, int, int], Client] = {}
        self._next_port = 40_000
        self._refusing: set[tuple[str, int]] = set()
        self.record = self.worker.memory.record
        self.record.return_at = NEVER
        handler.on_start(self.worker)

    # -- what a test does

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return int(self.record.now) / 1e6

    def connect(self, port: int | None = None, *, source: str = "10.9.0.1", **client: Any) -> Client:
        """Open a connection from `source` and let the handshake finish (on a lossy wire: as time passes)."""
        self._next_port += 1
        local = (source, self._next_port)
        made = Client(self._arrive, local=local, remote=(self.ip, port or self.port), **client)
        self._clients[local] = made
        self.settle()
        return made

    @staticmethod
    def free_port() -> int:
        """A port that nobody listens on, unless it is made to be."""
        return 80

    def listen(self, port: int, address: str = "10.9.0.1", *, accept: bool = True) -> list[Client]:
        """Be a server for the handler to connect to: its connections are appended to the list. `accept=False` refuses them."""
        accepted: list[Client] = []
        if accept:
            self._listening[address, port] = accepted
        else:
            self._refusing.add((address, port))
        return accepted

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; timers on both sides fire on the way."""
        until = self.now + seconds
        self.settle()
        while self.now < until:
            self.record.now = min(int(until * 1e6 + 0.5), int(self.record.now) + int(STEP_SECONDS * 1e6))
            self.tick_clients()
            self.settle()
            if self.now >= until - 1e-9:
                break

    def tick_clients(self) -> None:
        """Tell the clients what time it is."""
        for client in (*self._clients.values(), *self._accepted.values()):
            client.tick(self.now)

    def settle(self) -> None:
        """Let everything that can happen now happen."""
        for _ in range(100_000):
            events = self.worker.step(sleep=False)
            moved = self._carry()
            if not events and not moved and not self._pending():
                return
        raise AssertionError("the host does not come to rest: a handler that writes for ever?")

    def stop(self) -> None:
        """`on_stop`, then the core's memory is given back. The host can't be used any more."""
        self.handler.on_stop()
        self.worker.close()
        self._wire.close()

    @property
    def stats(self) -> dict[str, int]:
        """The core's counters, by name."""
        return self.worker.stats

    # -- the wire

    def _pending(self) -> bool:
        worker = self.worker
        return bool(worker.channel.words or self._wire.waiting or self.record.notify_count or worker.calls_wait)

    def _arrive(self, segment: Segment) -> None:
        self._wire.deliver(segment.frame(self._wire.mac, CLIENT_MAC))

    def _carry(self) -> bool:
        """Bring the stack's frames to the clients; whether there were any."""
        frames = self._wire.collect()
        for sent in frames:
            if sent[12:14] == b"\x08\x06":
                self._answer_arp(sent)
                continue
            segment = self._parse(sent)
            if segment is None:
                continue
            client = self._client_of(segment)
            if client is not None:
                client.arrives(segment, self.now)
        return bool(frames)

    def _client_of(self, segment: Segment) -> Client | None:
        """Whose segment it is; one that asks for a connection makes a client where somebody listens."""
        here = (segment.destination, segment.dport)
        client = self._clients.get(here) or self._accepted.get((*here, segment.sport))
        if client is None and segment.flags == "S" and here in self._listening:
            client = Client(self._arrive, local=here, remote=(self.ip, segment.sport), syn=segment)
            self._accepted[(*here, segment.sport)] = client
            self._listening[here].append(client)
            return None
        if client is None and here in self._refusing and "R" not in segment.flags:
            self._arrive(self._refusal(segment))
        return client

    def _refusal(self, segment: Segment) -> Segment:
        ack = (segment.seq + len(segment.payload) + ("S" in segment.flags)) & 0xFFFFFFFF
        return Segment(segment.dport, segment.sport, 0, ack, "RA", 0, b"", b"", segment.destination, self.ip)

    def _parse(self, frame: bytes) -> Segment | None:
        """The segment in a frame. A bad one is dropped, as any host does, if the wire may have made it so."""
        try:
            return parse_tcp(frame)
        except BadFrame:
            if not self._corrupts:
                raise
            return None

    def _answer_arp(self, frame: bytes) -> None:
        target = ".".join(map(str, frame[38:42]))
        if frame[21] == 1:
            self._wire.deliver(arp_reply(CLIENT_MAC, target, self._wire.mac, self.ip))
