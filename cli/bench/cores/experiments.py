"""The experiments: how each is measured, in how many rounds, and the table that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mpserve.cli.bench import wires
from mpserve.cli.bench.cores import accepts, cycles, deliver, rebalance
from mpserve.cli.bench.cores.clock import read_tsc
from mpserve.cli.bench.cores.lane import Sample, run_lane
from mpserve.cli.bench.cores.network import check_root
from mpserve.cli.bench.cores.nic import nic_rx, nic_tx, port_rx, port_tx
from mpserve.dataplane.errors import SetupError

SECONDS = 0.2  # of a measurement in the rig
SKEWED_SECONDS = 4.0  # of one of `rebalance`, whose workers look ten times a second
UNITS = (read_tsc, nic_rx, nic_tx, port_rx, port_tx, run_lane)


@dataclass(frozen=True)
class Experiment:
    """`measure(rounds, seconds)` gives a sample for each measurement; `progress` says in a few words what one was.

    `samples` is how many a round has, and `before` how many come before the first round.
    """

    title: str
    measure: Callable[[int, float], Iterator[Sample]]
    progress: Callable[[Sample], str]
    head: Sequence[str]
    rows: Callable[[list[Sample]], list[list[str]]]
    rounds: int
    samples: int
    before: int = 0
    real_workers: bool = False

    def steps(self, rounds: int) -> int:
        return self.before + rounds * self.samples


EXPERIMENTS = {
    "cycles": Experiment(
        "the servers' cycles a request",
        cycles.measure,
        lambda s: f"{s['plan']}, {s['connections']} connections: {s['cycles']:.0f} cycles a request",
        cycles.HEAD,
        cycles.rows,
        rounds=15,
        samples=len(cycles.PLANS) * len(cycles.CONNECTIONS),
    ),
    "accept": Experiment(
        "the servers' cycles a short connection",
        accepts.measure,
        lambda s: f"{s['kind']}: {s['cycles']:.0f} cycles a connection",
        accepts.HEAD,
        accepts.rows,
        rounds=15,
        samples=len(accepts.KINDS),
    ),
    "deliver": Experiment(
        "where frames of outgoing connections arrive",
        lambda rounds, seconds: deliver.measure(rounds),
        lambda s: (
            f"receive flow deliver {'on' if s['deliver'] else 'off'}, core {s['core']}: {100 * deliver.home(s):.1f} % at home"
        ),
        deliver.HEAD,
        deliver.rows,
        rounds=3,
        samples=4,
        real_workers=True,
    ),
    "rebalance": Experiment(
        "a skewed load",
        lambda rounds, seconds: rebalance.measure(rounds, SKEWED_SECONDS),
        lambda s: (
            f"rebalance, {rebalance.LABELS[s['rebalance']]}: {s['replies_per_second']:.0f} replies/s, p99 {s['p99_ms']:.1f} ms"
        ),
        rebalance.HEAD,
        rebalance.rows,
        rounds=3,
        samples=2,
        before=1,
        real_workers=True,
    ),
}


def check(names: Sequence[str]) -> None:
    """SetupError if this machine can't carry one of them out."""
    from mpserve.framework.process import import_everything

    wires.two_cores()
    import_everything()  # which says it if DPDK is missing
    if any(EXPERIMENTS[name].real_workers for name in names):
        check_root()


def compile_rig(say: Callable[[str], None]) -> None:
    """Once, before anything is measured; the stack itself is compiled before."""
    missing = [unit for unit in UNITS if not unit.is_cached()]
    if missing:
        say("compiling clients and cores of the experiments, once")
    for unit in UNITS:
        unit.address  # noqa: B018  # compiled by asking


def find(names: Sequence[str]) -> list[str]:
    """The names, in the order in which they run; all if none is given. SetupError for one that there is not."""
    unknown = next((name for name in names if name not in EXPERIMENTS), None)
    if unknown is not None:
        raise SetupError(f"--only {unknown}: there are {', '.join(EXPERIMENTS)}")
    return [name for name in EXPERIMENTS if not names or name in names]
