"""`mpserve bench paper`: all experiments one after the other, with progress; data after each server, the page at the end."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mpserve.apps.load.plan import Plan
from mpserve.cli.bench import figures, machine, tables, wires
from mpserve.cli.bench.cores import experiments as several
from mpserve.cli.bench.generator import generating
from mpserve.cli.bench.paper import cores, experiments, page, plots
from mpserve.cli.bench.rounds import PORT, Run, Samples, carry_out
from mpserve.dataplane.errors import SetupError

STAGED = ("compiled", "python")
STAGES_TITLE = "Where the cycles of a request go"
READY_SECONDS = 90


class Data:
    """What was measured so far, in a file that is whole at any time.

    `samples` are by experiment; `stages`: server -> stage -> cycles, a dict a round; `failed`: experiment -> why it ended.
    """

    def __init__(self, file: Path, about: dict[str, str]) -> None:
        self._file, self.about = file, about
        self.samples: dict[str, Samples] = {}
        self.stages: dict[str, list[dict[str, float]]] = {}
        self.failed: dict[str, str] = {}

    def keep(self) -> None:
        beside = self._file.with_suffix(".part")
        kept = {"machine": self.about, "samples": self.samples, "stages": self.stages, "failed": self.failed}
        beside.write_text(json.dumps(kept, indent=1) + "\n")
        beside.replace(self._file)


def run(folder: Path, chosen: Sequence[str], rounds: int, seconds: float, on_step: Callable[[str], None]) -> Path:
    """Measure and write; the page's path. An interrupted run writes the page of what there is, and goes on being interrupted."""
    plots.pyplot()
    wires.check("veth")
    folder.mkdir(parents=True, exist_ok=True)
    data = Data(folder / "data.json", machine.describe())
    wanted = [experiment for experiment in _all() if not chosen or experiment.name in chosen]
    try:
        for experiment in wanted:
            _measure(experiment, rounds, seconds, data, on_step)
        for name in of_cores(chosen):
            _measure_cores(name, rounds, data, on_step)
        if not chosen or "stages" in chosen:
            _measure_stages(rounds, seconds, data, on_step)
    finally:
        if any(data.samples.values()) or data.stages:
            write_page(folder / "index.html", wanted, data)
    return folder / "index.html"


def steps(chosen: Sequence[str], rounds: int) -> int:
    """How often `on_step` is called."""
    wanted = [experiment for experiment in _all() if not chosen or experiment.name in chosen]
    count = sum(len(part.servers) * len(part.loads) for experiment in wanted for part in experiment.parts)
    staged = len(STAGED) if not chosen or "stages" in chosen else 0
    of_each = (several.EXPERIMENTS[name].steps(cores.rounds_of(name, rounds)) for name in of_cores(chosen))
    return rounds * (count + staged) + sum(of_each)


def names() -> list[str]:
    return [*(experiment.name for experiment in _all()), *several.EXPERIMENTS, "stages"]


def of_cores(chosen: Sequence[str]) -> list[str]:
    """Those of several cores, which have no servers and loads of their own."""
    return [name for name in several.EXPERIMENTS if not chosen or name in chosen]


def _all() -> list[experiments.Experiment]:
    return [make() for make in experiments.ALL]


def _measure(
    experiment: experiments.Experiment, rounds: int, seconds: float, data: Data, on_step: Callable[[str], None]
) -> None:
    done: Samples = []
    for part in experiment.parts:
        before = list(done)

        def keep(samples: Samples, before: Samples = before) -> None:
            data.samples[experiment.name] = before + samples
            data.keep()

        part_run = Run(part.wire, part.servers, part.loads, rounds, seconds)
        done = before + carry_out(part_run, lambda what: on_step(f"{experiment.title}: {what}"), keep)


def _measure_cores(name: str, rounds: int, data: Data, on_step: Callable[[str], None]) -> None:
    """What fails is said on the page, which has the rest."""
    experiment, samples = several.EXPERIMENTS[name], data.samples.setdefault(name, [])
    try:
        for sample in experiment.measure(cores.rounds_of(name, rounds), several.SECONDS):
            on_step(f"{experiment.title}: {experiment.progress(sample)}")
            samples.append(sample)
    except SetupError as error:
        data.failed[name] = str(error)
    data.keep()


def _measure_stages(rounds: int, seconds: float, data: Data, on_step: Callable[[str], None]) -> None:
    for _ in range(rounds):
        for kind in STAGED:
            on_step(f"{STAGES_TITLE}: {kind}")
            data.stages.setdefault(kind, []).append(_stages_of(kind, seconds))
            data.keep()


def _stages_of(kind: str, seconds: float) -> dict[str, float]:
    """Cycles a request by stage, of 64 connections over memif."""
    with wires.make_wire("memif", kernel_address=False) as wire, contextlib.ExitStack() as stack:
        started = contextlib.ExitStack()
        server = started.enter_context(_staged_server(wire, kind))
        try:
            generator = stack.enter_context(generating(wire, PORT))
            generator.begin(Plan(), seconds)
            server.send_signal(signal.SIGUSR1)
            generator.wait_for("measured")
            server.terminate()
            out, _ = server.communicate(timeout=READY_SECONDS)
        finally:
            started.close()
    line = next((line for line in out.splitlines() if line.startswith("STAGES ")), None)
    if line is None:
        raise SetupError(f"the server that counts its stages ended without a count: {out[-200:]}")
    found: dict[str, float] = json.loads(line.removeprefix("STAGES "))
    return found


@contextlib.contextmanager
def _staged_server(wire: wires.Wire, kind: str) -> Iterator[subprocess.Popen[str]]:
    argv = [*wire.server_prefix, sys.executable, "-m", "mpserve.cli.bench.paper.stages", wire.server_device, kind]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=wire.folder) as server:
        try:
            assert server.stdout is not None
            if not server.stdout.readline().startswith("serving"):
                raise SetupError("the server that counts its stages did not start: run " + " ".join(argv[3:]))
            yield server
        finally:
            if server.poll() is None:
                server.terminate()


def write_page(file: Path, wanted: Sequence[experiments.Experiment], data: Data) -> None:
    sections, notes = [], []
    for experiment in wanted:
        samples = data.samples.get(experiment.name)
        if samples:
            sections.append(_section(experiment, samples))
            notes += [f"{experiment.title}: {line}" for line in figures.failures(samples)]
    sections += cores.sections(data.samples)
    notes += [f"{several.EXPERIMENTS[name].title}: {why}" for name, why in data.failed.items()]
    if data.stages:
        sections.append(_stages_section(data.stages))
    if float(data.about["busy_before"].rstrip("%")) > 5:
        notes.append(f"Not a quiet machine: others took {data.about['busy_before']} of the cores before the run.")
    file.write_text(page.page(data.about, sections, notes))


def _section(experiment: experiments.Experiment, samples: Samples) -> page.Section:
    found = figures.figures_of(samples)
    rows = [row for part in experiment.parts for row in tables.rows_of(found, part.servers, part.loads)]
    return page.Section(
        experiment.title,
        experiment.question,
        [plots.DRAWN[experiment.draw](experiment, found)],
        experiment.reading,
        experiment.limits,
        [page.Table(tables.HEAD[:-1], [row[:-1] for row in rows])],
    )


def _stages_section(measured: dict[str, list[dict[str, float]]]) -> page.Section:
    """Of each server the round with the median total."""
    middle: dict[str, Any] = {}
    for kind, rounds in measured.items():
        ordered = sorted(rounds, key=lambda found: sum(v for k, v in found.items() if k != "requests"))
        middle[{"compiled": "compiled handler", "python": "Python handler"}[kind]] = ordered[len(ordered) // 2]
    rows = [
        [server, stage, tables.number(cycles)]
        for server, found in middle.items()
        for stage, cycles in found.items()
        if stage != "requests"
    ]
    return page.Section(
        STAGES_TITLE,
        "What does each stage of a request cost?",
        [plots.stages(STAGES_TITLE, middle)],
        "Busy cycles a request, 64 connections, 64-byte echo over memif, split by the time stamp counter around each call of the "
        "turn. A Python handler runs in what is called the turn itself.",
        "Reading the counter costs some 25 cycles twice a call, which is once for many requests. Instructions are not counted: "
        "that needs a performance counter, which virtual machines seldom have.",
        [page.Table(("server", "stage", "cycles a request"), rows)],
    )
