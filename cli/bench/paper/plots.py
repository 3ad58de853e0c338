"""Figures drawn as SVG, to stand in the page: labelled so that each can be read without the text around it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mpserve.cli.bench.figures import Figure, by_name, name_of
from mpserve.cli.bench.paper.experiments import Experiment
from mpserve.dataplane.errors import SetupError

COLOURS = ("#0b5394", "#cc4125", "#38761d", "#888888", "#741b47", "#bf9000")
MARKERS = ("o", "s", "^", "D", "v", "P")


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


def _axes(experiment: Experiment, height: float = 4.2) -> tuple[Any, Any]:
    figure, axes = pyplot().subplots(figsize=(8.5, height), layout="constrained")
    axes.set_title(experiment.title, loc="left", fontsize=12, fontweight="bold")
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
    figure, axes = _axes(experiment)
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


def _bars(experiment: Experiment, values: Sequence[tuple[str, float, float, float]], unit: str, digits: str) -> str:
    figure, axes = _axes(experiment, 0.9 + 0.36 * len(values))
    labels = [label for label, *_ in values][::-1]
    height = [median for _, median, _, _ in values][::-1]
    below = [median - low for _, median, low, _ in values][::-1]
    above = [high - median for _, median, _, high in values][::-1]
    colours = [
        COLOURS[0] if "mpserve" in label or "Python" in label or "compiled" in label else COLOURS[3] for label in labels
    ]
    axes.barh(labels, height, xerr=[below, above], color=colours, error_kw={"linewidth": 0.8}, height=0.7)
    for at, value in enumerate(height):
        axes.annotate(
            format(value, digits), (value, at), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_xlabel(unit)
    axes.margins(x=0.14)
    axes.grid(axis="y", visible=False)
    return svg(figure)


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
    return _bars(experiment, values, "thousands of requests a second; lines: lowest and highest round", ",.0f")


def bars_of_cycles(experiment: Experiment, figures: list[Figure]) -> str:
    known = by_name(figures)
    values = []
    for part in experiment.parts:
        for load in part.loads:
            for server in part.servers:
                found = known.get(name_of(server.name, load.name, "cycles"))
                if found is not None:
                    values.append((f"{load.name}: {server.label}", found.median, found.min, found.max))
    return _bars(experiment, values, "busy cycles a request, of the server; less is better", ",.0f")


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


def model(title: str, measured: Mapping[int, float], predicted: Mapping[int, float]) -> str:
    """Million requests a second against cores: what was measured, and the model beyond."""
    figure, axes = pyplot().subplots(figsize=(8.5, 4.0), layout="constrained")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.plot(
        list(predicted),
        list(predicted.values()),
        "--",
        color=COLOURS[3],
        label="model: from the measured cost of a core",
    )
    axes.plot(
        list(measured),
        list(measured.values()),
        "o",
        color=COLOURS[0],
        label="measured: one core",
    )
    axes.set_xlabel("cores")
    axes.set_ylabel("million requests a second")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.legend(frameon=False, fontsize=9)
    return svg(figure)


DRAWN: dict[str, Callable[[Experiment, list[Figure]], str]] = {
    each.__name__: each for each in (lines_of_rate, bars_of_rate, bars_of_cycles, lines_of_latency)
}
