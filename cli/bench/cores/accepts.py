"""`accept`: what a short connection costs the servers: partitioned or one shared accept queue, lwsockets or descriptors."""

from collections.abc import Iterator
from dataclasses import dataclass

from mpserve.cli.bench.cores.cycles import signed
from mpserve.cli.bench.cores.lane import Sample
from mpserve.cli.bench.cores.rig import Plan, Rig
from mpserve.cli.bench.spread import Spread

CONNECTIONS = 64  # clients, each with one connection after the other


@dataclass(frozen=True)
class Kind:
    """One way to accept."""

    cores: int
    accept: str  # "" for cores that know nothing of each other
    handles: str
    at_once: bool = False

    @property
    def plan(self) -> Plan:
        return Plan("", cores=self.cores, joined=bool(self.accept), at_once=self.at_once, mixed=self.at_once)

    @property
    def how(self) -> str:
        """How many cores, and when they work."""
        return f"{self.cores}{', at once' if self.at_once else ', in turn' if self.cores > 1 else ''}"

    @property
    def queue(self) -> str:
        return self.accept or ("" if self.cores == 1 else "two cores apart")

    @property
    def first(self) -> str:
        """The kind that this one is compared with."""
        return "1 lwsocket" if self.cores == 1 else f"2 partitioned lwsocket{', at once' if self.at_once else ''}"


KINDS = {
    "1 lwsocket": Kind(1, "", "lwsocket"),
    "1 fd": Kind(1, "", "fd"),
    "2 apart lwsocket": Kind(2, "", "lwsocket"),
    "2 partitioned lwsocket": Kind(2, "partitioned", "lwsocket"),
    "2 partitioned fd": Kind(2, "partitioned", "fd"),
    "2 shared lwsocket": Kind(2, "shared", "lwsocket"),
    "2 shared fd": Kind(2, "shared", "fd"),
    "2 apart lwsocket, at once": Kind(2, "", "lwsocket", at_once=True),
    "2 partitioned lwsocket, at once": Kind(2, "partitioned", "lwsocket", at_once=True),
    "2 shared lwsocket, at once": Kind(2, "shared", "lwsocket", at_once=True),
}


def measure(rounds: int, seconds: float, connections: int = CONNECTIONS) -> Iterator[Sample]:
    """Each kind in each round: connect, a request, its reply, close, and the next."""
    for number in range(rounds):
        for kind in KINDS:
            yield {"round": number, "kind": kind} | run(kind, connections, seconds)


def run(kind: str, connections: int, seconds: float, verify: bool = False) -> Sample:
    """A shared queue's connections are taken by whichever core looks first. In turn that would always be the one that queued
    the SYN; so the dice say where SYNs arrive, and the rest of the flow comes to the queue of its port."""
    chosen = KINDS[kind]
    limits = {"accept": chosen.accept or "partitioned", "handles": chosen.handles}
    draws = chosen.accept == "shared" and not chosen.at_once
    rig = Rig(chosen.plan, connections, one_shot=True, draws=draws, verify=verify, **limits)
    try:
        return rig.measure(seconds)
    finally:
        rig.close()


HEAD = ("cores", "accept queue", "handles", "cycles a connection", "dearer, %", "k connections/s", "steered, %")


def rows(samples: list[Sample]) -> list[list[str]]:
    shown = []
    for name, kind in KINDS.items():
        found = [s for s in samples if s["kind"] == name]
        if found:
            cells = [
                Spread.of(s["cycles"] for s in found).text(),
                _dearer(samples, name),
                Spread.of(s["requests"] / s["seconds"] for s in found).text(1e3),
                Spread.of(100 * s["steered_out"] / max(s["rx_frames"], 1) for s in found).text(),
            ]
            shown.append([kind.how, kind.queue, kind.handles, *cells])
    return shown


def _dearer(samples: list[Sample], kind: str) -> str:
    """Than the kind that it is compared with, in the same round."""
    found = {(s["round"], s["kind"]): s["cycles"] for s in samples}
    first = KINDS[kind].first
    if kind == first:
        return ""
    shares = [c / found[n, first] - 1 for (n, name), c in found.items() if name == kind and (n, first) in found]
    return signed(Spread.of(shares)) if shares else ""
