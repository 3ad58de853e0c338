"""The sections about several cores, from the samples of `mpserve bench cores` that the same run has taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mpserve.cli.bench.cores import accepts, cycles, deliver, rebalance
from mpserve.cli.bench.cores.experiments import EXPERIMENTS
from mpserve.cli.bench.cores.lane import Sample
from mpserve.cli.bench.paper import page, plots
from mpserve.cli.bench.rounds import Samples
from mpserve.cli.bench.spread import Spread, number

MOST_CORES = 16
CONNECTIONS = 64  # as over memif
IDEAS_TITLE = "Several cores: what partitioning, lightweight sockets and receive flow deliver are worth"
SPEED_UP_TITLE = "Speed-up against cores"
SKEWED_TITLE = "A load that arrives on one core alone"


def rounds_of(name: str, rounds: int) -> int:
    """In one process a measurement takes a fifth of a second; real workers take ten to start, be loaded and end."""
    return min(rounds, 2) if EXPERIMENTS[name].real_workers else 3 * rounds


def sections(samples: Mapping[str, Samples]) -> list[page.Section]:
    """Those of which something was measured."""
    made = []
    if samples.get("accept") or samples.get("deliver"):
        made.append(_ideas(samples.get("accept", []), samples.get("deliver", [])))
    if samples.get("ideas") or samples.get("cycles"):
        made.append(_speed_up(samples.get("ideas", []), samples.get("cycles", [])))
    if samples.get("rebalance"):
        made.append(_skewed(samples["rebalance"]))
    return made


def _table(name: str, samples: list[Sample]) -> list[page.Table]:
    experiment = EXPERIMENTS[name]
    return [page.Table(experiment.head, experiment.rows(samples), f"Figures: {experiment.title}")] if samples else []


def _bar(label: str, values: Iterable[float]) -> plots.Bar:
    found = Spread.of(values)
    return label, found.median, found.low, found.high


def _ideas(accept: list[Sample], delivered: list[Sample]) -> page.Section:
    missing = [name for name, found in (("accept", accept), ("deliver", delivered)) if not found]
    return page.Section(
        IDEAS_TITLE,
        "Which part of the design brings what when there are more cores? (MegaPipe, table 3; Fastsocket, table 1)",
        [*_accept_plots(accept), *_deliver_plots(delivered)],
        "Busy cycles of a connection with one request (connect, 64 bytes there and back, close), less is better: with a listener "
        "of each core's own or one accept queue behind a lock, and with or without a descriptor of the kernel's for each "
        "connection. And of the frames that two workers receive on 500 connections each that they opened themselves, the share "
        "that arrived at the core that opened them; the rest came through the other one.",
        "In turn: two cores one after the other on one CPU, which shows what their code costs; at once: each on a CPU of its own, "
        "which shows what they do to each other, and what else the machine does. Frames go from memory to memory, so that no "
        "device is in it. Receive flow deliver was seen on a veth by packet sockets: where frames arrive, not what that is worth."
        + "".join(f" Not measured in this run: {name}." for name in missing),
        _table("accept", accept) + _table("deliver", delivered),
    )


def _accept_plots(samples: list[Sample]) -> list[str]:
    found = {name: [s["cycles"] for s in samples if s["kind"] == name] for name in accepts.KINDS}
    kinds = {name: kind for name, kind in accepts.KINDS.items() if found[name]}
    unit = "busy cycles a connection, of the servers; lines: lowest and highest round"
    made = []
    for title, chosen in (
        ("Accepting: partitioned or shared", [n for n, kind in kinds.items() if kind.handles == "lwsocket"]),
        ("Accepting: lightweight sockets or descriptors", [n for n, kind in kinds.items() if _has_both(kinds, kind)]),
    ):
        bars = [_bar(_label(kinds[name]), found[name]) for name in chosen]
        ours = {_label(kinds[name]) for name in chosen if _is_ours(kinds[name])}
        made += [plots.bars(title, bars, unit, ",.0f", ours)] if bars else []
    return made


def _label(kind: accepts.Kind) -> str:
    where = ", ".join(word for word in (kind.how, kind.queue, kind.handles) if word)
    return where.replace("1, ", "1 core, ", 1) if kind.cores == 1 else where.replace("2, ", "2 cores, ", 1)


def _has_both(kinds: Mapping[str, accepts.Kind], kind: accepts.Kind) -> bool:
    """Whether there is a kind that differs in its handles alone."""
    return any((k.how, k.queue) == (kind.how, kind.queue) and k.handles != kind.handles for k in kinds.values())


def _is_ours(kind: accepts.Kind) -> bool:
    return kind.handles == "lwsocket" and kind.accept != "shared" and kind.queue != "two cores apart"


def _deliver_plots(samples: list[Sample]) -> list[str]:
    labels = {True: "receive flow deliver", False: "any port"}
    bars = [
        _bar(label, (100 * deliver.home(s) for s in samples if s["deliver"] is on))
        for on, label in labels.items()
        if any(s["deliver"] is on for s in samples)
    ]
    unit = "frames that arrive at their core, %; lines: lowest and highest of both cores and all rounds"
    title = "Outgoing connections: where replies arrive"
    return [plots.bars(title, bars, unit, ",.1f", {labels[True]})] if bars else []


def _speed_up(ideas: Samples, measured: list[Sample]) -> page.Section:
    """What one core costs, what a second one adds, and what more of them would do: a model, and called that."""
    points, predicted, grown = [], dict[int, float](), cycles.growth(measured, cycles.JOINED, CONNECTIONS)
    one = _one_core(ideas, measured)
    if one is not None:
        label, rate = one
        points.append((f"measured: one core, {label}", 1, rate))
        if grown is not None:
            two = Spread(*(2 * rate.median / (1 + more) for more in (grown.median, grown.high, grown.low)))
            points.append(("two cores, measured one after the other on one core", 2, two))
            more = max(grown.median, 0.0)
            predicted = {n: n * rate.median / (1 + more * (n - 1)) for n in range(1, MOST_CORES + 1)}
    rows = [[str(cores), what, found.text()] for what, cores, found in points]
    rows += [[str(n), "model", number(rate)] for n, rate in predicted.items()]
    return page.Section(
        SPEED_UP_TITLE,
        "What do more cores bring? (MegaPipe, figure 3; Fastsocket, figure 4)",
        [plots.model(SPEED_UP_TITLE, points, predicted)] if points else [],
        "64-byte echo by a compiled handler, 64 connections: what a core that does nothing else can do, from its busy cycles a "
        "request. Cores share nothing that a request touches.",
        _limits(grown),
        [page.Table(("cores", "", "million requests a second"), rows), *_table("cycles", measured)],
    )


def _limits(grown: Spread | None) -> str:
    if grown is None:
        return (
            "There is no model of more cores: what a second one adds to a request's cost was not measured in this run "
            "(the experiment is called cycles)."
        )
    return (
        f"From one core to two members of a group, measured one after the other on one core in the same rounds, a request's cost "
        f"changed by {cycles.signed(grown)} %; the second point is twice the first at that cost. Beyond it the line is a model: as "
        "many times the first, at a cost that grows by as much with each core, or by nothing if it fell. What two "
        'processors do to each other\'s caches is not in it: of that, compare the rows "at once" of the table with one another.'
    )


def _one_core(ideas: Samples, measured: list[Sample]) -> tuple[str, Spread] | None:
    """Million requests a second over memif, from the costs of each round; without those, of the core that was alone."""
    over_memif = [
        s for s in ideas if s["server"] == "compiled" and "cycles" in s and not s["closes_first"].startswith("the")
    ]
    if over_memif:
        return "over memif", Spread.of(s["tsc_hz"] / s["cycles"] / 1e6 for s in over_memif)
    alone = [s for s in measured if (s["plan"], s["connections"]) == (cycles.ALONE, CONNECTIONS)]
    return ("without a device", Spread.of(s["tsc_hz"] / s["cycles"] / 1e6 for s in alone)) if alone else None


def _skewed(samples: list[Sample]) -> page.Section:
    labels = {False: "without --rebalance", True: "--rebalance"}
    panels = {
        unit: [
            _bar(label, (s[name] for s in samples if s["rebalance"] is on))
            for on, label in labels.items()
            if any(s["rebalance"] is on for s in samples)
        ]
        for name, unit in (("replies_per_second", "replies a second"), ("p99_ms", "p99 of latency, milliseconds"))
    }
    return page.Section(
        SKEWED_TITLE,
        "What if the hash gives one core more than it can serve?",
        [plots.pairs(SKEWED_TITLE, panels, ",.0f", {labels[True]})] if panels["replies a second"] else [],
        f"Two workers on a veth; all connections hash to the queue of the first. Each has one request, which takes a handler "
        f"in Python {rebalance.BURN_US} us; there are {rebalance.OVERLOAD:g} times as many as one worker serves, in an open "
        "loop, timed from when each was due.",
        "Without rebalancing the queue grows for as long as the load lasts, and p99 says how long that was. The client has what "
        "the workers leave of both CPUs. Devices whose groups of flows can be moved are not shown.",
        _table("rebalance", samples),
    )
