"""What a run has to say about where it ran: processor, kernel, versions, the state of the sources."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

from benchmarks.web.cores import busy_before


def _output(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "not installed"
    return (done.stdout or done.stderr).strip()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe() -> dict[str, str]:
    """Name -> text, for the raw data and the line above the tables."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": f"{processor.group(1) if processor else platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "dpdk": _output(["pkg-config", "--modversion", "libdpdk"]),
        "nginx": _output(["nginx", "-v"]).rpartition("/")[2],
        "wrk": _output(["dpkg-query", "-W", "-f", "${Version}", "wrk"]),
        "uvloop": _version("uvloop"),
        "numba": _version("numba"),
        "mpserve": _version("mpserve"),
        "commit": _output(["git", "describe", "--always", "--dirty"]),
        "busy_before": f"{busy_before():.0%}",
    }
