"""Figures drawn as SVG, to stand in the page: labelled so that each can be read without the text around it."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mpserve.cli.bench.figures import Figure, by_name, name_of
from mpserve.cli.bench.paper.experiments import Experiment
from mpserve.cli.bench.spread import Spread
from mpserve.dataplane.errors import SetupError

COLOURS = ("#0b5394", "#cc4125", "#38761d", "#888888", "#741b47", "#bf9000")
MARKERS = ("o", "s", "^", "D", "v", "P")
Bar = tuple[str, float, float, float]  # label, median, lowest, highest


def pyplot() -> Any:
    """matplotlib, which is not installed with mpserve itself."""
    try:
        import matplotlib
    except ImportError:
        raise SetupError("mpserve bench paper draws with matplotlib: type pip install 'mpserve[bench]'") from None
    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {"font.size": 10, "svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}
    )
    from matplotlib import pyplot as found

    return found


def svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    pyplot().close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def axes_of(title: str, height: float = 4.2) -> tuple[Any, Any]:
    figure, axes = pyplot().subplots(figsize=(8.5, height), layout="constrained")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _points(experiment: Experiment, known: Mapping[str, Figure], server: str, what: str) -> list[tuple[float, Figure]]:
    loads = [load.name for part in experiment.parts for load in part.loads]
    found = [(load, known.get(name_of(server, load, what))) for load in loads]
    return sorted((experiment.x(load), figure) for load, figure in found if figure is not None)


def _line(axes: Any, points: list[tuple[float, Figure]], scale: float, number: int, **style: Any) -> None:
    x, found = [at for at, _ in points], [figure for _, figure in points]
    y = [figure.median / scale for figure in found]
    spread = [[(f.median - f.min) / scale for f in found], [(f.max - f.median) / scale for f in found]]
    colour = COLOURS[number % len(COLOURS)]
    axes.errorbar(x, y, yerr=spread, color=colour, marker=MARKERS[number % len(MARKERS)], markersize=4, linewidth=1.4,
                  elinewidth=0.8, capsize=2, **style)  # fmt: skip


def lines_of_rate(experiment: Experiment, figures: list[Figure]) -> str:
    known = by_name(figures)
    figure, axes = axes_of(experiment.title)
    for number, server in enumerate(experiment.parts[0].servers):
        points = _points(experiment, known, server.name, "rate")
        if points:
            _line(axes, points, 1000, number, label=server.label)
    unit = experiment.parts[0].loads[0].name.split(" ", 1)[1]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [experiment.x(load.name) for load in experiment.parts[0].loads]
    axes.set_xticks(ticks, [f"{int(tick)}" for tick in ticks])
    axes.set_xlabel({"bytes": "bytes a message"}.get(unit, "requests a connection"))
    axes.set_ylabel("thousands of requests a second")
    axes.legend(frameon=False, fontsize=9)
    return svg(figure)


def bars(title: str, values: Sequence[Bar], unit: str, digits: str, ours: Collection[str]) -> str:
    """From the top down; those whose label is among `ours` in colour."""
    figure, axes = axes_of(title, 0.9 + 0.36 * len(values))
    _draw_bars(axes, values, digits, ours)
    axes.set_xlabel(unit)
    return svg(figure)


def pairs(title: str, panels: Mapping[str, Sequence[Bar]], digits: str, ours: Collection[str]) -> str:
    """Panels side by side, each of the same bars in a unit of its own, which is its name."""
    figure, row = pyplot().subplots(1, len(panels), figsize=(8.5, 1.9), layout="constrained", squeeze=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    for axes, (unit, values) in zip(row[0], panels.items(), strict=True):
        _draw_bars(axes, values, digits, ours)
        axes.set_xlabel(unit)
    return svg(figure)


def _draw_bars(axes: Any, values: Sequence[Bar], digits: str, ours: Collection[str]) -> None:
    labels = [label for label, *_ in values][::-1]
    height = [median for _, median, _, _ in values][::-1]
    below = [median - low for _, median, low, _ in values][::-1]
    above = [high - median for _, median, _, high in values][::-1]
    colours = [COLOURS[0] if label in ours else COLOURS[3] for label in labels]
    axes.barh(labels, height, xerr=[below, above], color=colours, error_kw={"linewidth": 0.8}, height=0.7)
    for at, value in enumerate(height):
        axes.annotate(
            format(value, digits),
            (value + above[at], at),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.margins(x=0.14)
    axes.grid(axis="y", visible=False)


def bars_of_rate(experiment: Experiment, figures: list[Figure]) -> str:
    known = by_name(figures)
    values = []
    for part in experiment.parts:
        for load in part.loads:
            for server in part.servers:
                found = known.get(name_of(server.name, load.name, "rate"))
                if found is not None:
                    values.append(
                        (f"{load.name}: {server.label}", *(v / 1000 for v in (found.median, found.min, found.max)))
                    )
    unit = "thousands of requests a second; lines: lowest and highest round"
    return bars(experiment.title, values, unit, ",.0f", _ours(values))


def bars_of_cycles(experiment: Experiment, figures: list[Figure]) -> str:
    known = by_name(figures)
    values = []
    for part in experiment.parts:
        for load in part.loads:
            for server in part.servers:
                found = known.get(name_of(server.name, load.name, "cycles"))
                if found is not None:
                    values.append((f"{load.name}: {server.label}", found.median, found.min, found.max))
    unit = "busy cycles a request, of the server; less is better"
    return bars(experiment.title, values, unit, ",.0f", _ours(values))


def _ours(values: Sequence[Bar]) -> set[str]:
    """The labels of servers that are this project's."""
    return {label for label, *_ in values if any(word in label for word in ("mpserve", "Python", "compiled"))}


def lines_of_latency(experiment: Experiment, figures: list[Figure]) -> str:
    known = by_name(figures)
    compared = [
        s for s in experiment.parts[0].servers if _points(experiment_at_rates(experiment), known, s.name, "p50_us")
    ]
    percentiles = ("p50_us", "p99_us", "p99.9_us", "p99.99_us")
    figure, rows = pyplot().subplots(
        1, max(len(compared), 1), figsize=(8.5, 4.2), layout="constrained", sharey=True, squeeze=False
    )
    figure.suptitle(experiment.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    for axes, server in zip(rows[0], compared, strict=False):
        for number, what in enumerate(percentiles):
            points = _points(experiment_at_rates(experiment), known, server.name, what)
            _line(axes, points, 1, number, label=what.removesuffix("_us"))
        axes.axvline(1, color="#bbbbbb", linewidth=0.8)
        axes.set_title(server.label, fontsize=10)
        axes.set_yscale("log")
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_xlabel("load, of its capacity")
    rows[0][0].set_ylabel("microseconds")
    rows[0][0].legend(frameon=False, fontsize=9)
    return svg(figure)


def experiment_at_rates(experiment: Experiment) -> Experiment:
    """Without the load by which the capacity was found."""
    import dataclasses

    parts = [
        dataclasses.replace(part, loads=[load for load in part.loads if load.fraction]) for part in experiment.parts
    ]
    return dataclasses.replace(experiment, parts=parts)


def stages(title: str, cycles: Mapping[str, Mapping[str, float]]) -> str:
    """One bar a server, its stages one behind the other."""
    figure, axes = pyplot().subplots(figsize=(8.5, 0.9 + 0.8 * max(len(cycles), 1)), layout="constrained")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    names = [name for name in next(iter(cycles.values()), {}) if name != "requests"]
    palette = pyplot().get_cmap("tab10")
    starts = [0.0] * len(cycles)
    for number, name in enumerate(names):
        widths = [found.get(name, 0.0) for found in cycles.values()]
        axes.barh(list(cycles), widths, left=starts, color=palette(number), label=name, height=0.6)
        for row, (start, width) in enumerate(zip(starts, widths, strict=True)):
            if width > 0.06 * max(sum(v for k, v in found.items() if k != "requests") for found in cycles.values()):
                axes.annotate(
                    f"{width:.0f}", (start + width / 2, row), ha="center", va="center", fontsize=8, color="white"
                )
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axes.set_xlabel("cycles a request")
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.35))
    return svg(figure)


def model(title: str, measured: Sequence[tuple[str, int, Spread]], predicted: Mapping[int, float]) -> str:
    """Million requests a second against cores: (what it is, cores, rates) of what was measured, and the model, if there is one."""
    figure, axes = axes_of(title, 4.0)
    if predicted:
        label = "model: from what a second core adds to a request's cost"
        axes.plot(list(predicted), list(predicted.values()), "--", color=COLOURS[3], label=label)
    for number, (label, cores, rate) in enumerate(measured):
        spread = [[rate.median - rate.low], [rate.high - rate.median]]
        axes.errorbar([cores], [rate.median], yerr=spread, fmt=MARKERS[number], color=COLOURS[number], markersize=6,
                      elinewidth=0.8, capsize=2, label=label)  # fmt: skip
    axes.set_xlabel("cores")
    axes.set_ylabel("million requests a second")
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(1, max([1, *predicted, *(cores for _, cores, _ in measured)]) + 1))
    axes.legend(frameon=False, fontsize=9)
    return svg(figure)


DRAWN: dict[str, Callable[[Experiment, list[Figure]], str]] = {
    each.__name__: each for each in (lines_of_rate, bars_of_rate, bars_of_cycles, lines_of_latency)
}
