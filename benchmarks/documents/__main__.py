"""`make bench`: every series of `mpserve bench`, into benchmarks/results, README.md (in short) and docs/benchmarks.md (in full)."""

import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from benchmarks.documents import markers
from benchmarks.documents.series import ALL, Series
from mpserve.cli.bench import figures, machine, tables, wires
from mpserve.cli.bench.commands import compile_all, progress_bar
from mpserve.cli.bench.rounds import Run, Samples, carry_out
from mpserve.dataplane.errors import SetupError

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results"


def measure(rounds: int, seconds: float, keep_in: Path, about: dict[str, str]) -> dict[str, Samples]:
    """The samples of every series, kept as they come."""
    found: dict[str, Samples] = {}
    runs = [Run(series.wire, series.servers, series.loads, rounds, seconds) for series in ALL]
    with progress_bar() as progress:
        task = progress.add_task("starting", total=sum(run.steps for run in runs))
        for series, run in zip(ALL, runs, strict=True):

            def on_step(what: str, title: str = series.title) -> None:
                progress.update(task, description=f"{title}: {what}")
                progress.advance(task)

            def keep(samples: Samples, title: str = series.title) -> None:
                found[title] = samples
                write(keep_in, about, found)

            carry_out(run, on_step, keep)
    return found


def write(file: Path, about: dict[str, str], found: dict[str, Samples]) -> None:
    made = []
    for series in ALL:
        of_series = figures.figures_of(found.get(series.title, []), series.against)
        made += [asdict(figure) | {"name": f"{series.title}: {figure.name}"} for figure in of_series]
    file.write_text(json.dumps({"machine": about, "figures": made, "samples": found}, indent=1) + "\n")


def text_of(series: Series, samples: Samples, only_short: bool) -> str:
    """A heading and the table, in Markdown; "" where there is nothing to show."""
    loads = [load for load in series.loads if not only_short or load.name in series.short]
    rows = tables.rows_of(figures.figures_of(samples, series.against), series.servers, loads)
    return f"**{series.title}**\n\n{tables.markdown(rows)}" if rows else ""


def document(about: dict[str, str], found: dict[str, Samples], rounds: int, seconds: float, only_short: bool) -> str:
    parts = [text_of(series, found.get(series.title, []), only_short) for series in ALL]
    machine_line = ", ".join(f"{name} {about[name]}" for name in about if name != "busy_before")
    notes = [line for samples in found.values() for line in figures.failures(samples)]
    if float(about["busy_before"].rstrip("%")) > 5:
        notes.append(f"not a quiet machine: others took {about['busy_before']} of the cores before the run")
    said = f"Medians (lowest-highest) of {rounds} x {seconds:g} s; {machine_line}."
    return "\n\n".join(part for part in [*parts, said, "\n".join(f"- {note}" for note in notes)] if part)


@click.command()
@click.option("--quick", is_flag=True, help="One round of 0.3 s, into results/quick; the documents stay as they are.")
@click.option("--rounds", default=3, show_default=True, help="Every server runs in each.")
@click.option("--seconds", default=2.0, show_default=True, help="Length of one measurement.")
def main(quick: bool, rounds: int, seconds: float) -> None:
    """This project's servers beside others on this machine, and the limits of its wires."""
    if quick:
        rounds, seconds = 1, 0.3
    try:
        wires.check("veth")
        compile_all()
    except SetupError as error:
        click.echo(f"bench: {error}", err=True)
        sys.exit(2)
    about = machine.describe()
    folder = RESULTS / ("quick" if quick else datetime.datetime.now().strftime("%Y-%m-%d-%H%M"))
    folder.mkdir(parents=True, exist_ok=True)
    found = measure(rounds, seconds, folder / "figures.json", about)
    full = document(about, found, rounds, seconds, only_short=False)
    (folder / "summary.md").write_text(full + "\n")
    failed = any("failed" in sample for samples in found.values() for sample in samples)
    if not quick and not failed:
        where = folder.relative_to(REPOSITORY)
        short = document(about, found, rounds, seconds, only_short=True)
        markers.refresh_file(REPOSITORY / "README.md", f"{short}\n\nAll of it: [`{where}`]({where}/summary.md).")
        markers.refresh_file(REPOSITORY / "docs" / "benchmarks.md", full)
    click.echo(full)
    click.echo(f"written to {folder}{', the documents left as they were: servers failed' if failed else ''}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
