"""The sub-commands of `mpserve bench`."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mpserve.dataplane.errors import SetupError

SECONDS = click.FloatRange(0.01, 3600)
_OPTIONS = [
    click.option("--wire", type=click.Choice(["memif", "veth"]), help="memif: no kernel between, ours alone; veth."),
    click.option("--servers", metavar="NAMES", help="By comma; those that fit by default."),
    click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Every server runs in each."),
    click.option("--seconds", default=2.0, show_default=True, type=SECONDS, help="Length of one measurement."),
    click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write figures there."),
]
_RATE = click.option(
    "--rate",
    default=0.0,
    metavar="N",
    help="Requests a second, timed from when each is due; 0: as fast as replies come.  [0]",
)


@click.group()
def bench() -> None:
    """Measure this server and others, on this machine, under the same load.

    The generator is a client on this project's own stack; it and the server have a core each. Costs (busy cycles a request)
    come first, then rates; a rate at which the generator was busy for more than 80 % may be its own limit, and is marked.

    \b
    mpserve bench echo                      over memif: the stack without a kernel between
    mpserve bench http                      over a veth, beside nginx, uvloop, asyncio
    mpserve bench oneshot --connections 256
    mpserve bench latency
    mpserve bench cores                     what a second core costs and brings
    mpserve bench paper                     all of that and more, as one page with plots
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: nothing is left


def _measured(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        shared = {name: options.pop(name) for name in ("wire", "servers", "rounds", "seconds", "json_file")}
        wire, names, loads, against = command(wire=shared["wire"], **options)
        _run(
            wire,
            shared["servers"] or names,
            loads,
            against,
            **{k: shared[k] for k in ("rounds", "seconds", "json_file")},
        )

    made: Callable[..., Any] = wrapped
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def _run(
    wire: str, names: str, loads: list[Any], against: str, *, rounds: int, seconds: float, json_file: Path | None
) -> None:
    from rich.console import Console

    from mpserve.cli.bench import figures, machine, servers, tables, wires
    from mpserve.cli.bench.rounds import Run, Samples

    wires.check(wire)
    chosen, left_out = _choose(names, wire, loads[0].plan.protocol)
    run = Run(wire, chosen, loads, rounds, seconds)
    compile_all()
    about = machine.describe()

    def keep(measured: Samples) -> None:
        if json_file is not None:
            figures.write(json_file, about, measured, against)

    samples = _with_progress(run, keep)
    console = Console(width=150)
    found = figures.figures_of(samples, against)
    title = f"over {wire}, medians (lowest-highest) of {rounds} x {seconds:g} s; ratio to {servers.find(against).label}"
    console.print(tables.table(title, tables.rows_of(found, chosen, loads)))
    for line in [*left_out, *figures.failures(samples), *_remarks(samples, about)]:
        console.print(line, markup=False, highlight=False)
    if any("failed" in sample for sample in samples):
        click.get_current_context().exit(1)


def _choose(names: str, wire: str, protocol: str) -> tuple[list[Any], list[str]]:
    """The servers by name, and why some that were to be compared are not there. SetupError if none is left."""
    from mpserve.cli.bench import servers

    wanted = [servers.find(name) for name in names.split(",")]
    foreign = next((server.name for server in wanted if wire == "memif" and not server.is_ours), None)
    if foreign is not None:
        raise SetupError(f"--wire memif: {foreign} has kernel sockets, and no kernel is there: type --wire veth")
    other = next((server.name for server in wanted if server.protocol != protocol), None)
    if other is not None:
        fitting = ", ".join(server.name for server in servers.SERVERS if server.protocol == protocol)
        raise SetupError(f"{other} does not speak {protocol}: there are {fitting}")
    obstacles = [server.obstacle for server in wanted if server.obstacle]
    chosen = [server for server in wanted if not server.obstacle]
    if not chosen:
        raise SetupError(obstacles[0])
    return chosen, obstacles


def compile_all() -> None:
    """The stack, for the server, and the generator; with progress."""
    from mpserve.apps.load.loop import run_load, turn_load
    from mpserve.apps.load.raw import bounce_frames, echo_frames
    from mpserve.dataplane import jit
    from mpserve.framework.compiling import Progress

    missing = [unit.name for unit in jit.units() if not unit.is_cached()]
    if missing:
        with Progress(len(missing)) as progress:
            jit.warm(lambda name, done, total: progress.show(name, done))
    generator = [unit for unit in (run_load, turn_load, bounce_frames, echo_frames) if not unit.is_cached()]
    if generator:
        click.echo("compiling the load generator, once", err=True)
        for unit in generator:
            unit.address  # noqa: B018  # compiled by asking


def progress_bar() -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    return Progress(*columns, transient=True)


def _with_progress(run: Any, keep: Callable[[Any], Any]) -> Any:
    from mpserve.cli.bench.rounds import carry_out

    with progress_bar() as progress:
        task = progress.add_task("starting", total=run.steps)

        def on_step(what: str) -> None:
            progress.update(task, description=what)
            progress.advance(task)

        return carry_out(run, on_step, keep)


def _remarks(samples: Any, about: dict[str, str]) -> list[str]:
    said = []
    if float(about["busy_before"].rstrip("%")) > 5:
        said.append(f"not a quiet machine: others took {about['busy_before']} of the cores before the run")
    closers = {sample["closes_first"] for sample in samples if "failed" not in sample} - {"nobody"}
    if closers:
        said.append(f"{' or '.join(sorted(closers))} ends each connection first")
    return said


@bench.command()
@_measured
@click.option("--connections", default="1,16,64,256", show_default=True, help="A load for each number.")
@click.option("--message", default=64, show_default=True, help="Bytes, 64 KiB at most.")
@click.option("--pipeline", default=1, show_default=True, help="Requests at once on each connection.")
@_RATE
def echo(wire: str | None, connections: str, message: int, pipeline: int, rate: float) -> Any:
    """Messages sent back; keep-alive."""
    loads = [
        _load(f"{n} connections", connections=n, message=message, pipeline=pipeline, rate=rate)
        for n in _numbers(connections)
    ]
    over = wire or "memif"
    return over, "compiled,python" if over == "memif" else "compiled,python,asyncio-echo,uvloop-echo", loads, "python"


@bench.command()
@_measured
@click.option("--message", default="64", show_default=True, help="Bytes that a TCP segment would carry; some numbers.")
def raw(wire: str | None, message: str) -> Any:
    """Frames without TCP, sent back by the other end: what the wire and its driver carry at all."""
    return wire or "memif", "raw", [_load(f"{n} bytes", protocol="raw", message=n) for n in _numbers(message)], "raw"


@bench.command()
@_measured
@click.option("--connections", default="1,64,256", show_default=True, help="A load for each number.")
@_RATE
def http(wire: str | None, connections: str, rate: float) -> Any:
    """GET of 64 bytes; keep-alive."""
    loads = [_load(f"{n} connections", protocol="http", connections=n, rate=rate) for n in _numbers(connections)]
    return (
        wire or "veth",
        "fixed,http" if wire == "memif" else "fixed,http,nginx,uvloop,asyncio,granian,uvicorn",
        loads,
        "http" if wire == "memif" else "nginx",
    )


@bench.command()
@_measured
@click.option("--connections", default="64", show_default=True, help="A load for each number.")
@click.option("--message", default=64, show_default=True, help="Bytes of a value.")
@click.option("--keys", default=10_000, show_default=True, help="Filled before, and asked for evenly.")
def memcached(wire: str | None, connections: str, message: int, keys: int) -> Any:
    """GETs that hit."""
    loads = [
        _load(f"{n} connections", protocol="memcached", connections=n, message=message, keys=keys)
        for n in _numbers(connections)
    ]
    against = "memcached" if wire != "memif" else "mpserve-memcached"
    return wire or "veth", "mpserve-memcached" if wire == "memif" else "mpserve-memcached,memcached", loads, against


@bench.command()
@_measured
@click.option("--connections", default="64", show_default=True, help="At a time; a load for each number.")
@click.option("--transactions", default="1", show_default=True, help="Requests a connection; a load for each number.")
def oneshot(wire: str | None, connections: str, transactions: str) -> Any:
    """A connection for each request, or for a few: HTTP over a veth, echo over memif. The generator closes first."""
    over = wire or "veth"
    protocol = "http" if over == "veth" else "echo"
    loads = [
        _load(f"{n} at a time, {k} each", protocol=protocol, connections=n, transactions=k)
        for n in _numbers(connections)
        for k in _numbers(transactions)
    ]
    return (
        over,
        "fixed,http,nginx" if over == "veth" else "compiled,python",
        loads,
        "nginx" if over == "veth" else "python",
    )


@bench.command()
@_measured
@click.option("--connections", default=64, show_default=True, help="Of the open loop.")
def latency(wire: str | None, connections: int) -> Any:
    """Echo at one connection, and at half of the most that each server does: an open loop, timed from when each was due."""
    from mpserve.cli.bench.rounds import Load

    most = _load("as fast as it goes", connections=connections)
    loads = [_load("1 connection", connections=1), most, Load("half load, open loop", most.plan, 0.5, most.name)]
    over = wire or "veth"
    names = "compiled,python,asyncio-echo,uvloop-echo" if over == "veth" else "compiled,python"
    return over, names, loads, "asyncio-echo" if over == "veth" else "python"


def _load(name: str, **plan: Any) -> Any:
    from mpserve.apps.load.plan import Plan
    from mpserve.cli.bench.rounds import Load

    return Load(name, Plan(**plan))


def _numbers(text: str) -> list[int]:
    """`1,16,64`."""
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        raise SetupError(f"{text!r}: type whole numbers with commas between, such as 1,16,64") from None
    return found
