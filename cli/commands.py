"""The command group: sub-commands are imported when they are called, installed applications add theirs by entry point.

Every error a user can mend is one line on stderr and exit status 2.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mpserve.dataplane.errors import SetupError
from mpserve.framework.options import suggestion

BUILT_IN = {
    "run": "serve a handler of your own",
    "python": "run an asyncio program over the stack",
    "http": "serve static files, or a hello page",
    "memcached": "serve memcached's text protocol",
    "echo": "send back what comes in",
    "bench": "measure it beside other servers",
    "warm": "compile the TCP stack now",
    "devices": "list the kinds of devices, and which work here",
}
ENTRY_POINTS = "mpserve.apps"


class Commands(click.Group):
    """The built-in commands, then those of entry points in `mpserve.apps`."""

    def list_commands(self, context: click.Context) -> list[str]:
        return [*BUILT_IN, *sorted(name for name in _installed() if isinstance(_load(name), click.Command))]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in BUILT_IN:
            return getattr(importlib.import_module(f"mpserve.cli.{name}"), name)
        found = _load(name) if name in _installed() else None
        if isinstance(found, click.Command):
            return found
        if found is not None and not context.resilient_parsing:
            raise SetupError(f"{name} is a handler: type mpserve run {name}")
        return None

    def resolve_command(self, context: click.Context, args: list[str]) -> tuple[Any, Any, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(context, name) is None:
            known = [*BUILT_IN, *_installed()]
            raise SetupError(f"no command is called {name!r}{suggestion(name, known)}; there are {', '.join(known)}")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """The built-in ones without importing them, for `mpserve --help` to be quick."""
        rows = list(BUILT_IN.items())
        for name in self.list_commands(context)[len(BUILT_IN) :]:
            command = self.get_command(context, name)
            rows.append((name, command.get_short_help_str() if command else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    return {point.name: point for point in points if point.name not in BUILT_IN}


def _load(name: str) -> Any:
    """What an entry point names; None, with a word on stderr, where that fails: the other commands still work."""
    try:
        return _installed()[name].load()
    except Exception as error:
        click.echo(f"mpserve: the installed application {name} can't be loaded: {error}", err=True)
        return None


@click.command(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mpserve", message="mpserve %(version)s")
@click.pass_context
def mpserve(context: click.Context) -> None:
    """Serve TCP from Python at the speed of the wire: DPDK, a TCP stack compiled by numba, and your handler.

    \b
    mpserve http                        a hello page; prints the URL, stops on Ctrl-C
    mpserve http --root ./public        static files
    mpserve run echo.py:Echo            the class Echo of echo.py, on port 7
    mpserve run echo.py:Echo --listen :9000 --set greeting=hi
    mpserve devices                     what --device can be, and what works on this machine

    Settings may also stand in mpserve.toml, as [server] and [handler]; flags win. `mpserve COMMAND --help` has more.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run_command_line(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and leave with its exit status: 0, 1 where the server failed, 2 for what the user can mend."""
    from mpserve.framework.supervisor import WorkerFailed

    try:
        status = mpserve.main(arguments, prog_name="mpserve", standalone_mode=False)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context is not None else ""
        _leave(f"{error.format_message().rstrip('.')}{hint}", 2)
    except WorkerFailed as error:
        _leave(str(error), 1)
    except SetupError as error:
        _leave(str(error), 2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(status or 0)


def _leave(line: str, status: int) -> NoReturn:
    click.echo(f"mpserve: {' '.join(line.split())}", err=True)
    sys.exit(status)
