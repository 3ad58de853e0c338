"""From samples to figures: medians with the lowest and highest round, and ratios to a figure of the same run; as JSON."""

from __future__ import annotations

import json
import math
import os
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpserve.cli.bench.rounds import Samples

LIMIT_BUSY = 0.8  # a generator that is busier may be what limits the rate
LATENCIES = ("p50_us", "p99_us", "p99.9_us", "p99.99_us")
UNITS = {"cycles": "cycles a request", "rate": "requests/s"}


@dataclass(frozen=True)
class Figure:
    """`rounds` are the values themselves; `cycles` a request and `generator_busy` are medians of the same rounds.

    `ratio` is the median's to that of the figure named `against`.
    """

    name: str
    unit: str
    rounds: list[float]
    median: float
    min: float
    max: float
    cycles: float | None
    generator_busy: float
    against: str | None = None
    ratio: float | None = None


def name_of(server: str, load: str, what: str) -> str:
    return f"{server}, {load}, {what}"


def figures_of(samples: Samples, against: str | None = None) -> list[Figure]:
    """Rate and latencies of every server under every load; `against` is the server that ratios refer to."""
    found: dict[str, Figure] = {}
    for server, load in dict.fromkeys((s["server"], s["load"]) for s in samples if "failed" not in s):
        own = [s for s in samples if (s["server"], s["load"]) == (server, load) and "failed" not in s]
        for what, unit in (*UNITS.items(), *((latency, "us") for latency in LATENCIES)):
            found[name_of(server, load, what)] = _figure(own, server, load, what, unit)
    if against is not None:
        for name, figure in found.items():
            load, what = name.split(", ", 2)[1:]
            other = found.get(name_of(against, load, what))
            if other is not None and other is not figure and other.median:
                found[name] = Figure(**asdict(figure) | {"against": other.name, "ratio": figure.median / other.median})
    return list(found.values())


def _figure(own: Samples, server: str, load: str, what: str, unit: str) -> Figure:
    values = [float(sample.get(what, math.nan)) for sample in own]
    return Figure(
        name=name_of(server, load, what),
        unit=unit,
        rounds=values,
        median=statistics.median(values),
        min=min(values),
        max=max(values),
        cycles=statistics.median(sample["cycles"] for sample in own) if what == "rate" else None,
        generator_busy=statistics.median(sample["generator_busy"] for sample in own),
    )


def write(path: Path, machine: dict[str, str], samples: Samples, against: str | None) -> None:
    """Whole or not at all, so that an interrupted run leaves what was measured before."""
    made = {"machine": machine, "figures": [asdict(f) for f in figures_of(samples, against)], "samples": samples}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(made, indent=1) + "\n")
    os.replace(beside, path)


def failures(samples: Samples) -> list[str]:
    """A line for each server that failed, and for loads in which replies were missing."""
    said = []
    for sample in samples:
        where = f"{sample['server']}, round {sample['round'] + 1}"
        if "failed" in sample:
            said.append(f"{where}: {sample['failed']}")
        elif sample["failures"] or sample["refused"]:
            said.append(
                f"{where}, {sample['load']}: {sample['failures']} failures, {sample['refused']} connections refused"
            )
    return said


def by_name(figures: list[Figure]) -> dict[str, Any]:
    return {figure.name: figure for figure in figures}
