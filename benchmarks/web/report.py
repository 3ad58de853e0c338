"""From samples to medians and tables; no measuring here.

A sample is {"server", "load", "round", and the figures of loads.measure}.
"""

from typing import Any

from mpserve.cli.bench.spread import Spread

Samples = list[dict[str, Any]]


def spread(samples: Samples, server: str, load: str, figure: str) -> Spread | None:
    """Of `figure` over the rounds; None where no round has it."""
    found = [s[figure] for s in samples if s["server"] == server and s["load"] == load and figure in s]
    return Spread.of(found) if found else None


def _cell(found: Spread | None, scale: float = 1.0) -> str:
    return found.text(scale) if found else "-"


def _table(header: list[str], rows: list[list[str]]) -> str:
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def rate_table(samples: Samples, labels: dict[str, str]) -> str:
    """Requests a second, in thousands, and the two latencies that say most. One row a server."""
    loads = ["1", "16", "64", "256", "close"]
    header = ["thousands of requests/s", "1", "16", "64", "256", "close, 64", "p50 at 1, us", "p50 woken, us"]
    rows = []
    for server, label in labels.items():
        cells = [_cell(spread(samples, server, load, "rate"), 1000) for load in loads]
        latencies = [_cell(spread(samples, server, load, "p50_us")) for load in ("1", "spaced")]
        rows.append([label, *cells, *latencies])
    return _table(header, rows)


def cost_table(samples: Samples, labels: dict[str, str]) -> str:
    """Thousands of busy cycles a request, softirq included, of both cores together; what the server counts itself."""
    loads = ["1", "64", "256", "close"]
    # fmt: off
    header = ["thousands of cycles a request, both cores", *loads, "server's core, 64", "server's own count, 64",
              "client busy, 64"]
    # fmt: on
    rows = []
    for server, label in labels.items():
        both = [_cell(both_cores(samples, server, load), 1000) for load in loads]
        core = _cell(spread(samples, server, "64", "server_cycles_a_request"), 1000)
        own = _cell(spread(samples, server, "64", "own_cycles_a_request"), 1000)
        client = spread(samples, server, "64", "client_busy")
        rows.append([label, *both, core, own, f"{client.median:.0%}" if client else "-"])
    return _table(header, rows)


def both_cores(samples: Samples, server: str, load: str) -> Spread | None:
    key = "both_cycles_a_request"
    summed = [s | {key: s["server_cycles_a_request"] + s["client_cycles_a_request"]} for s in samples if "rate" in s]
    return spread(summed, server, load, key)


def latency_table(samples: Samples, labels: dict[str, str]) -> str:
    """p50 and p99 at every load, in microseconds."""
    loads = ["1", "16", "64", "256", "close", "spaced"]
    rows = []
    for server, label in labels.items():
        pairs = [
            (_cell(spread(samples, server, x, "p50_us")), _cell(spread(samples, server, x, "p99_us"))) for x in loads
        ]
        rows.append([label, *(f"{p50} / {p99}" for p50, p99 in pairs)])
    return _table(["p50 / p99, us", *loads], rows)


def notes(samples: Samples, busy_before: str = "0%") -> list[str]:
    """What a reader has to know about these very figures: errors, failures, time that others took."""
    said = []
    if int(busy_before.rstrip("%")) > 5:
        said.append(f"NOT A QUIET MACHINE: other processes took {busy_before} of the cores before the run")
    for sample in samples:
        where = f"{sample['server']} at {sample['load']}, round {sample['round'] + 1}"
        if "failed" in sample:
            said.append(f"{where}: failed: {sample['failed']}")
        elif sample["errors"]:
            said.append(f"{where}: {sample['errors']} errors of {sample['requests']} requests")
    stolen = max((s["server_stolen"] for s in samples if "rate" in s), default=0.0)
    if stolen > 0.01:
        said.append(f"the machine's owner took up to {stolen:.0%} of the server's core")
    return said
