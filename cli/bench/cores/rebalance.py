"""`rebalance`: all connections arrive on one of two cores, more than it can serve; with `--rebalance` and without."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

from mpserve.cli.bench.cores.lane import Sample
from mpserve.cli.bench.cores.network import PEER_IP, SERVER_IP, own_network, two_workers
from mpserve.cli.bench.cycles import JIFFIES, read_core_times
from mpserve.cli.bench.spread import Spread
from mpserve.cli.bench.wires import two_cores
from mpserve.dataplane.errors import SetupError
from mpserve.framework.server import Server

PORT = 7
BURN_US = 300  # of processor time, for each request
OVERLOAD = 1.3  # of what one worker serves
COUNTED = "connections_accepted steered_new steered_out steered_in drop_accept_full syn_cookies_sent".split()


def measure(rounds: int, seconds: float, burn_us: int = BURN_US) -> Iterator[Sample]:
    """First what one worker serves; then with and without rebalancing at OVERLOAD times that, taking turns."""
    alone = run(False, 1.2e6 / burn_us, burn_us, seconds=min(seconds, 2.0))
    yield {"round": -1, "rebalance": None} | alone
    for number in range(rounds):
        for rebalance in (False, True):
            found = run(rebalance, OVERLOAD * alone["replies_per_second"], burn_us, seconds=seconds)
            yield {"round": number, "rebalance": rebalance} | found


def run(
    rebalance: bool, rate: float, burn_us: int, *, warm_up: float = 3.0, seconds: float = 4.0, patience: float = 2.0
) -> Sample:
    """`rate` connections a second, each with one request, all of them to queue 0."""
    with own_network(), two_workers("Burner", options={"burn_us": burn_us}, rebalance=rebalance) as server:
        argv = [sys.executable, "-m", "mpserve.cli.bench.cores.skewed_client", PEER_IP, f"{SERVER_IP}:{PORT}"]
        for name, value in {"rate": rate, "warm-up": warm_up, "seconds": seconds, "patience": patience}.items():
            argv += [f"--{name}", str(value)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
            found = _watch(server, client)
    return {"rate": rate, "burn_us": burn_us} | found


def _watch(server: Server, client: "subprocess.Popen[str]") -> Sample:
    """What the client says, and what the workers and the CPUs did while it measured."""
    _expect(client, "measuring")
    before, cores, started = server.stats(), read_core_times(), time.monotonic()
    _expect(client, "measured")
    after, spent, seconds = server.stats(), read_core_times(), time.monotonic() - started
    found: Sample = json.loads(_line(client))
    found["workers"] = [
        {"core": row["core"]} | {name: row[name] - earlier[name] for name in COUNTED}
        for row, earlier in zip(after, before, strict=True)
    ]
    found["cpus_busy"] = [(spent[core].busy - cores[core].busy) / JIFFIES / seconds for core in two_cores()]
    return found


def _expect(client: "subprocess.Popen[str]", word: str) -> None:
    line = _line(client)
    if line != word:
        raise SetupError(f"the client said {line!r} where {word!r} was expected")


def _line(client: "subprocess.Popen[str]") -> str:
    assert client.stdout is not None
    line = client.stdout.readline().strip()
    if not line:
        raise SetupError("the client failed: its message is above")
    return line


LABELS = {None: "one worker's most", False: "off", True: "on"}
HEAD = (
    "rebalance|due/s|replies/s|p50, ms|p99, ms|failed or unanswered|moved|moved, %|CPUs busy, %|client, % of a CPU"
).split("|")


def rows(samples: list[Sample]) -> list[list[str]]:
    shown = []
    for rebalance, label in LABELS.items():
        found = [s for s in samples if s["rebalance"] is rebalance]
        if found:
            measured = ("rate", "replies_per_second", "p50_ms", "p99_ms")
            cells = [Spread.of(s[name] for s in found).text() for name in measured]
            cells += [
                Spread.of(s["failed"] + s["unanswered"] for s in found).text(),
                Spread.of(accepted(s)[1] for s in found).text(),
                Spread.of(100 * moved(s) for s in found).text(),
                "; ".join(Spread.of(100 * s["cpus_busy"][n] for s in found).text() for n in range(2)),
                Spread.of(100 * s["busy"] for s in found).text(),
            ]
            shown.append([label, *cells])
    return shown


def accepted(sample: Sample) -> list[int]:
    """Connections, by worker; all arrive at the first, so that what the second has was moved to it."""
    return [row["connections_accepted"] for row in sample["workers"]]


def moved(sample: Sample) -> float:
    """The share of the connections accepted that were moved."""
    return accepted(sample)[1] / max(sum(accepted(sample)), 1)
