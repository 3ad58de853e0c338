"""`mpserve bench cores`: the experiments one after the other, each sample said as it comes; tables, and the figures in a file."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from mpserve.cli.bench import machine
from mpserve.cli.bench.cores import cycles
from mpserve.cli.bench.cores.experiments import EXPERIMENTS
from mpserve.cli.bench.cores.lane import Sample
from mpserve.dataplane.errors import SetupError


def run(names: Sequence[str], rounds: int, seconds: float, file: Path | None, say: Callable[[str], None]) -> None:
    """`rounds` of each, 0: as many as suit it. The tables go to the terminal, the figures to `file` after each experiment."""
    from rich.console import Console

    kept, about, console = read(file), machine.describe(), Console(width=180)
    for name in names:
        experiment, samples = EXPERIMENTS[name], list[Sample]()
        for sample in experiment.measure(rounds or experiment.rounds, seconds):
            say(f"{name}, round {sample['round'] + 1}: {experiment.progress(sample)}")
            samples.append(sample)
        console.print(table(f"{name}: {experiment.title}", experiment.head, experiment.rows(samples)))
        for line in cycles.verdict(samples) if name == "cycles" else []:
            console.print(line, markup=False, highlight=False)
        kept[name] = {
            "date": datetime.date.today().isoformat(),
            "machine": about,
            "settings": {"rounds": rounds or experiment.rounds, "seconds": seconds},
            "samples": samples,
        }
        if file is not None:
            write(file, kept)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = Table(*head, title=title, title_justify="left")
    for row in rows:
        made.add_row(*row)
    return made


def read(file: Path | None) -> dict[str, Any]:
    """What a file has of earlier runs, by experiment: those that don't run again keep it. SetupError if it is another file."""
    if file is not None and not file.parent.is_dir():
        raise SetupError(f"--json {file}: there is no folder {file.parent}")
    if file is None or not file.exists():
        return {}
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SetupError(f"--json {file}: not a file of this command, which would replace it: {error}") from None
    if not isinstance(found, dict) or not set(found) <= set(EXPERIMENTS):
        raise SetupError(f"--json {file}: not a file of this command, which would replace it: give another name")
    return found


def write(file: Path, figures: dict[str, Any]) -> None:
    """Whole or not at all."""
    beside = file.with_name(f".{file.name}.part")
    beside.write_text(json.dumps(figures) + "\n")
    beside.replace(file)
