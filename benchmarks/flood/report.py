"""From the samples of a flood to tables; no measuring here.

A sample is what `flood.generator` prints, with its `round`. An offer is measured twice in a round: with the flood before the
stack, and dropped before it.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from benchmarks.flood.offer import Offer
from mpserve.cli.bench.spread import Spread

TAKEN = (
    0.005  # the core takes an offer if no larger share of its frames finds the device full than with the flood dropped
)
Sample = dict[str, Any]


def _share_lost(sample: Sample) -> float:
    return (sample["syns_lost"] + sample["honest_lost"]) / max(sample["syns_due"] + sample["honest_due"], 1)


@dataclass(frozen=True)
class Trial:
    """One offer in one round, and what honest clients alone did in that round at the same pace (`quiet`)."""

    offer: Offer
    stack: Sample
    dropped: Sample
    quiet: Sample

    @property
    def kept(self) -> float:
        """The honest requests/s that the flood leaves, of those with the flood dropped."""
        return self.stack["requests_per_second"] / self.dropped["requests_per_second"]

    @property
    def syns_a_second(self) -> float:
        return self.stack["syns_due"] / self.stack["seconds"]

    @property
    def overrun(self) -> float:
        """The share of frames that found the device full, beyond that with the flood dropped: where others use the machine,
        a core that is not there for a moment loses frames either way."""
        return _share_lost(self.stack) - _share_lost(self.dropped)

    @property
    def server_busy(self) -> float:
        return self.stack["server"]["busy_cycles"] / (self.stack["seconds"] * self.stack["tsc_hz"])

    @property
    def cycles_a_request(self) -> float:
        """With the SYNs that come with it."""
        return self.stack["server"]["busy_cycles"] / max(self.stack["requests"], 1)

    @property
    def cycles_a_syn(self) -> float:
        """Busy cycles beyond what the requests cost without a flood, for each SYN of the flood."""
        alone = self.quiet["server"]["busy_cycles"] / max(self.quiet["requests"], 1)
        syns = self.stack["server"]["syns_received"] - self.stack["attempts"]
        return (self.stack["server"]["busy_cycles"] - alone * self.stack["requests"]) / max(syns, 1)


Trials = dict[Offer, list[Trial]]


def trials(samples: list[Sample]) -> Trials:
    """The rounds of each offer. Each pace has been offered without a flood, too."""
    found = {(s["round"], Offer.parse(s["offer"]), bool(s["drop"]["dropping"])): s for s in samples}
    made: Trials = defaultdict(list)
    for (number, offer, dropping), sample in found.items():
        if not dropping:
            quiet = found[number, offer.quiet, False]
            made[offer].append(Trial(offer, sample, found[number, offer, True], quiet))
    return made


def highest_taken(found: Trials) -> Offer | None:
    """The paced offer with the most SYNs to a frame that the core takes in the median of the rounds."""
    taken = [o for o, rounds in found.items() if o.requests and Spread.of(t.overrun for t in rounds).median <= TAKEN]
    return max(taken, key=lambda offer: offer.ratio, default=None)


def _cell(rounds: list[Trial], figure: Any, scale: float = 1.0) -> str:
    return Spread.of(figure(trial) for trial in rounds).text(scale)


def paced_table(found: Trials) -> Table:
    """Clients at a pace, and a flood at one: what the device has no room for is lost."""
    # fmt: off
    shown = Table("SYNs to a frame", "M SYNs/s offered", "k requests/s, dropped", "k requests/s", "kept %", "p99 us",
                  "k new/s", "left waiting", "ring full %", "same, dropped", "server busy %", "cycles a SYN", "generator busy %")
    # fmt: on
    for offer, rounds in found.items():
        if not offer.requests:
            continue
        shown.add_row(
            str(offer.ratio),
            _cell(rounds, lambda t: t.syns_a_second, 1e6),
            _cell(rounds, lambda t: t.dropped["requests_per_second"], 1e3),
            _cell(rounds, lambda t: t.stack["requests_per_second"], 1e3),
            _cell(rounds, lambda t: 100 * t.kept),
            _cell(rounds, lambda t: t.stack["p99_us"]),
            _cell(rounds, lambda t: t.stack["opened"] / t.stack["seconds"], 1e3),
            str(sum(t.stack["unanswered"] for t in rounds)),
            _cell(rounds, lambda t: 100 * _share_lost(t.stack)),
            _cell(rounds, lambda t: 100 * _share_lost(t.dropped)),
            _cell(rounds, lambda t: 100 * t.server_busy),
            _cell(rounds, lambda t: t.cycles_a_syn) if offer.ratio else "-",
            _cell(rounds, lambda t: 100 * t.stack["generator_busy"]),
        )
    return shown


def closed_table(found: Trials) -> Table:
    """Clients that ask as fast as they are answered, and a flood that keeps up with them: nothing is lost, the core is full."""
    # fmt: off
    shown = Table("SYNs to a frame", "k requests/s, dropped", "k requests/s", "kept %", "k new/s", "left waiting",
                  "cycles a request, with its SYNs", "cycles a SYN", "generator busy %")
    # fmt: on
    for offer, rounds in found.items():
        if offer.requests:
            continue
        shown.add_row(
            str(offer.ratio),
            _cell(rounds, lambda t: t.dropped["requests_per_second"], 1e3),
            _cell(rounds, lambda t: t.stack["requests_per_second"], 1e3),
            _cell(rounds, lambda t: 100 * t.kept),
            _cell(rounds, lambda t: t.stack["opened"] / t.stack["seconds"], 1e3),
            str(sum(t.stack["unanswered"] for t in rounds)),
            _cell(rounds, lambda t: t.cycles_a_request),
            _cell(rounds, lambda t: t.cycles_a_syn) if offer.ratio else "-",
            _cell(rounds, lambda t: 100 * t.stack["generator_busy"]),
        )
    return shown


def verdict(found: Trials) -> list[str]:
    """What the most that the core takes leaves of the honest load, and how its SYNs were answered."""
    offer = highest_taken(found)
    if offer is None:
        return ["the core takes no offer: something else runs on it, or the pace is beyond it"]
    rounds = found[offer]
    kept, rate = Spread.of(100 * t.kept for t in rounds), Spread.of(t.syns_a_second for t in rounds)
    names = "backlog_full syn_cookies_sent syn_cookies_taken syn_cookies_wrong drop_control_full".split()
    counted = {name: sum(t.stack["server"][name] for t in rounds) for name in names}
    return [
        f"The core takes {offer.ratio} SYNs to an honest frame, {rate.text(1e6)} million a second; "
        f"{kept.text()} % of the requests/s are kept.",
        "There, in all rounds: " + ", ".join(f"{name} {count}" for name, count in counted.items()),
    ]
