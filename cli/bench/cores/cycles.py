"""`cycles`: what a request costs the servers when there is one more core, under the same load in all."""

from collections.abc import Iterator

from mpserve.cli.bench.cores.lane import Sample
from mpserve.cli.bench.cores.rig import Plan, Rig
from mpserve.cli.bench.spread import Spread

ALONE, JOINED = "alone", "joined"
PLANS = {  # apart: they know nothing of each other
    ALONE: Plan("one, alone"),
    "idle": Plan("one of two members, the other idle", cores=2, joined=True, receiving=1, beside=ALONE),
    "apart": Plan("two apart, in turn", cores=2, beside=ALONE),
    JOINED: Plan("two members, in turn", cores=2, joined=True, beside=ALONE),
    "apart-at-once": Plan("two apart, at once", cores=2, at_once=True, beside=ALONE),
    "joined-at-once": Plan("two members, at once", cores=2, joined=True, at_once=True, beside="apart-at-once"),
}
CONNECTIONS = (64, 256)
MOST_GROWTH = 0.05  # asked for, of JOINED over ALONE


def measure(rounds: int, seconds: float, connections: tuple[int, ...] = CONNECTIONS) -> Iterator[Sample]:
    """Each plan in each round, with all connections of each number kept alive."""
    for number in range(rounds):
        for count in connections:
            for plan in PLANS:
                yield {"round": number, "plan": plan, "connections": count} | run(plan, count, seconds)


def run(plan: str, connections: int, seconds: float, verify: bool = False) -> Sample:
    rig = Rig(PLANS[plan], connections, verify=verify)
    try:
        return rig.measure(seconds)
    finally:
        rig.close()


def growth(samples: list[Sample], plan: str, connections: int) -> Spread | None:
    """Of a request's cycles over those of the plan it stands beside, in the same round."""
    found = {(s["round"], s["plan"]): s["cycles"] for s in samples if s["connections"] == connections}
    beside = PLANS[plan].beside
    shares = [
        cycles / found[number, beside] - 1
        for (number, name), cycles in found.items()
        if name == plan and (number, beside) in found
    ]
    return Spread.of(shares) if shares else None


HEAD = ("cores", "connections", "cycles a request", "growth, %", "over", "M requests/s", "frames steered")


def rows(samples: list[Sample]) -> list[list[str]]:
    shown = []
    for connections in dict.fromkeys(s["connections"] for s in samples):
        for name, plan in PLANS.items():
            found = [s for s in samples if (s["plan"], s["connections"]) == (name, connections)]
            if found:
                grown = growth(samples, name, connections)
                cells = [
                    Spread.of(s["cycles"] for s in found).text(),
                    signed(grown) if grown else "",
                    PLANS[plan.beside].label if plan.beside else "",
                    Spread.of(s["requests"] / s["seconds"] for s in found).text(1e6),
                    str(sum(s["steered_out"] for s in found)),
                ]
                shown.append([plan.label, str(connections), *cells])
    return shown


def signed(share: Spread) -> str:
    """A share in percent, median (lowest to highest)."""
    return f"{100 * share.median:+.1f} ({100 * share.low:+.1f} to {100 * share.high:+.1f})"


def verdict(samples: list[Sample]) -> list[str]:
    """What was asked for, and what came."""
    lines = []
    for connections in dict.fromkeys(s["connections"] for s in samples):
        grown = growth(samples, JOINED, connections)
        if grown is not None:
            word = "within" if grown.median <= MOST_GROWTH else "MORE than"
            lines.append(f"{connections} connections: {100 * grown.median:+.1f} %, {word} {100 * MOST_GROWTH:.0f} %")
    return lines
