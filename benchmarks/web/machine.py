"""What a run has to say about where it ran: as `mpserve bench` says it, with wrk's version and the state of the sources."""

import subprocess

from mpserve.cli.bench import machine

_PROGRAMS = {
    "wrk": ["dpkg-query", "-W", "-f", "${Version}", "wrk"],
    "commit": ["git", "describe", "--always", "--dirty"],
}


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not installed"
    return (done.stdout or done.stderr).strip()


def describe() -> dict[str, str]:
    """Name -> text, for the raw data and the line above the tables."""
    return machine.describe() | {name: _output(argv) for name, argv in _PROGRAMS.items()}
