"""The sub-commands that run a series of experiments: `mpserve bench cores`, `mpserve bench paper`."""

from __future__ import annotations

from pathlib import Path

import click

from mpserve.cli.bench.commands import SECONDS, bench, compile_all, progress_bar
from mpserve.dataplane.errors import SetupError


@bench.command()
@click.option("--only", metavar="NAME", multiple=True, help="One experiment; may be given again.")
@click.option("--rounds", default=0, type=click.IntRange(0), help="Of each experiment; 0: as many as suit it.  [0]")
@click.option("--seconds", default=0.2, show_default=True, help="Length of one measurement of cycles and accept.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Keep the figures there.")
def cores(only: tuple[str, ...], rounds: int, seconds: float, json_file: Path | None) -> None:
    """What several cores cost and bring, on a machine that has two.

    \b
    cycles     a request's cost with one core and with two: how much it grows
    accept     a short connection's: partitioned or shared accept queue, lwsockets or descriptors
    deliver    of the frames of outgoing connections, how many arrive at their core
    rebalance  a load that arrives on one core alone, with --rebalance and without

    cycles and accept have clients and cores in one process: on one CPU, one after the other ("in turn"), or each core on one
    of its own ("at once"). deliver and rebalance run real workers on a veth, for which they need root. A minute in all with
    --rounds 1. --json keeps what the file has of experiments that don't run again.

    \b
    mpserve bench cores --only cycles
    mpserve bench cores --only deliver --only rebalance --json cores.json
    """
    from mpserve.cli.bench.cores import command, experiments

    def say(text: str) -> None:
        click.echo(text, err=True)

    names = experiments.find(only)
    if seconds <= 0:
        raise SetupError(f"--seconds {seconds:g}: has to be more than 0")
    experiments.check(names)
    command.read(json_file)
    compile_all()
    experiments.compile_rig(say)
    command.run(names, rounds, seconds, json_file, say)


@bench.command()
@click.option("--output", default="mpserve-paper", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--only", metavar="NAMES", default="", help="Some experiments by comma, of those above.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Every server runs in each.")
@click.option("--seconds", default=1.0, show_default=True, type=SECONDS, help="Length of one measurement.")
def paper(output: Path, only: str, rounds: int, seconds: float) -> None:
    """The experiments of MegaPipe, Fastsocket and mTCP on this machine: one HTML page with plots, and the data beside it.

    \b
    sizes         throughput against message size
    transactions  throughput against requests a connection
    ideas         what batching, lwsockets and compiling are worth
    applications  memcached and HTTP beside the originals
    latency       latency against load
    cycles        as of `mpserve bench cores`: a request with one core and with two
    accept        a short connection: partitioned or shared accept queue, lwsockets or descriptors
    deliver       where the frames of outgoing connections arrive
    rebalance     a load that arrives on one core alone
    stages        where the cycles of a request go

    The speed-up against cores is drawn from ideas and cycles. Of rebalance and deliver there are two rounds at most, of
    cycles and accept three times --rounds, which take a fifth of a second for each measurement whatever --seconds says.
    """
    from mpserve.cli.bench.cores import experiments
    from mpserve.cli.bench.paper import command

    chosen = [name for name in only.split(",") if name]
    unknown = next((name for name in chosen if name not in command.names()), None)
    if unknown is not None:
        raise SetupError(f"--only {unknown}: there are {', '.join(command.names())}")
    several = command.of_cores(chosen)
    if several:
        experiments.check(several)
    compile_all()
    if several:
        experiments.compile_rig(lambda text: click.echo(text, err=True))
    with progress_bar() as progress:
        task = progress.add_task("starting", total=command.steps(chosen, rounds))

        def on_step(what: str) -> None:
            progress.update(task, description=what)
            progress.advance(task)

        made = command.run(output, chosen, rounds, seconds, on_step)
    click.echo(f"written: {made}, and data.json beside it")
