"""What a run has to say about where it ran: processor, kernel, versions, how busy the machine was before."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

from mpserve.cli.bench.cycles import JIFFIES, read_core_times

_PROGRAMS = {
    "dpdk": ["pkg-config", "--modversion", "libdpdk"],
    "nginx": ["nginx", "-v"],
    "memcached": ["memcached", "-V"],
}


def describe() -> dict[str, str]:
    """Name -> text."""
    processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    found = {
        "processor": f"{processor.group(1) if processor else platform.machine()}, {os.cpu_count()} cores",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "busy_before": f"{_busy_share():.0%}",
    }
    found |= {name: _version_of(argv) for name, argv in _PROGRAMS.items() if shutil.which(argv[0])}
    for name in ("mpserve", "numba", "uvloop"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _version_of(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return re.sub(r"^.*[/ ](?=\d)", "", (done.stdout or done.stderr).strip().splitlines()[-1])


def _busy_share(seconds: float = 1.0) -> float:
    """Of the cores' time, by whatever else runs."""
    before = read_core_times()
    time.sleep(seconds)
    after = read_core_times()
    busy = sum(after[core].busy + after[core].stolen - before[core].busy - before[core].stolen for core in before)
    return busy / JIFFIES / seconds / len(before)
