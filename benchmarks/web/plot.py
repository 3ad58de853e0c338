"""The picture of a run: rates at each load with the range of the rounds, and what a request costs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.web.report import Samples, Spread, both_cores, spread

LOADS = {"1": "1 connection", "16": "16", "64": "64", "256": "256", "close": "close, 64"}
# A polling server's core is busy whatever the load: a cost at one connection would only say how fast a round trip is.
BUSY_LOADS = {name: label for name, label in LOADS.items() if name != "1"}
COLOURS = {
    "mpserve-xdp": "#0b5394",
    "mpserve-packet": "#6fa8dc",
    "mpserve-http-xdp": "#38761d",
    "mpserve-http-packet": "#93c47d",
    "nginx": "#444444",
    "uvloop": "#888888",
    "asyncio": "#bbbbbb",
}


def _bars(
    axes: Any, samples: Samples, labels: dict[str, str], loads: dict[str, str], value: Callable[..., Spread | None]
) -> None:
    width = 0.8 / max(len(labels), 1)
    for i, (server, label) in enumerate(labels.items()):
        found = [value(samples, server, load) or Spread(0, 0, 0) for load in loads]
        at = [x + (i + 0.5) * width - 0.4 for x in range(len(loads))]
        height = [s.median / 1000 for s in found]
        ends = [[(s.median - s.low) / 1000 for s in found], [(s.high - s.median) / 1000 for s in found]]
        axes.bar(at, height, width, yerr=ends, label=label, color=COLOURS.get(server), error_kw={"lw": 0.8})
    axes.set_xticks(range(len(loads)), loads.values())
    axes.spines[["top", "right"]].set_visible(False)


def draw(samples: Samples, labels: dict[str, str], directory: Path) -> None:
    """Writes rates.png and rates.svg into `directory`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rates, costs) = pyplot.subplots(2, 1, figsize=(9, 7), layout="constrained")
    _bars(rates, samples, labels, LOADS, lambda s, server, load: spread(s, server, load, "rate"))
    rates.set_ylabel("thousands of requests/s")
    figure.legend(*rates.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8, frameon=False)
    _bars(costs, samples, labels, BUSY_LOADS, both_cores)
    costs.set_ylabel("thousands of busy cycles a request,\nboth cores, softirq included")
    for kind in ("png", "svg"):
        figure.savefig(directory / f"rates.{kind}", dpi=110)
    pyplot.close(figure)
