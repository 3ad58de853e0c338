"""`mpserve warm`: compile the stack now, so that the first start is as quick as the others."""

from __future__ import annotations

import click


@click.command()
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="How many to compile at a time.  [the cores]")
def warm(jobs: int | None) -> None:
    """Compile the TCP stack for this processor. What is compiled already, from these very sources, is left alone.

    The result is kept in ~/.cache/mpserve, or in $MPSERVE_CACHE_DIR.
    """
    from rich.console import Console
    from rich.table import Table

    from mpserve.dataplane import jit
    from mpserve.framework.compiling import Progress

    missing = [unit.name for unit in jit.units() if not unit.is_cached()]
    seconds = 0.0
    if missing:
        with Progress(len(missing)) as progress:
            seconds = jit.warm(lambda name, done, total: progress.show(name, done), jobs=jobs)
    table = Table("unit", "state")
    for unit in jit.units():
        table.add_row(unit.name, "compiled now" if unit.name in missing else "was compiled before")
    Console().print(table)
    click.echo(f"{len(missing)} compiled in {seconds:.1f} s; kept in {jit.cache_root()}")
