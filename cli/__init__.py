"""The mpserve command, one file a sub-command."""

from __future__ import annotations


def main() -> None:
    """The console script."""
    from mpserve.cli.commands import run_command_line

    run_command_line()
