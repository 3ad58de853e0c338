"""How busy each core was, from /proc/stat: everything but idle, so softirq work counts on the core it ran on."""

import re
from dataclasses import dataclass
from pathlib import Path

IDLE, IOWAIT, SOFTIRQ, STEAL = 3, 4, 6, 7


@dataclass(frozen=True)
class CoreTime:
    """Jiffies of one core since boot."""

    busy: int
    softirq: int
    steal: int
    total: int

    def since(self, earlier: "CoreTime") -> "CoreTime":
        return CoreTime(
            self.busy - earlier.busy,
            self.softirq - earlier.softirq,
            self.steal - earlier.steal,
            self.total - earlier.total,
        )


def parse_stat(text: str) -> dict[int, CoreTime]:
    """Core number -> time, from the text of /proc/stat (proc_stat(5)); guest time is within user time already."""
    cores = {}
    for number, fields in re.findall(r"^cpu(\d+) (.*)$", text, re.MULTILINE):
        jiffies = [int(field) for field in fields.split()][:8]
        idle = jiffies[IDLE] + jiffies[IOWAIT]
        total = sum(jiffies)
        busy = total - idle - jiffies[STEAL]
        cores[int(number)] = CoreTime(busy, jiffies[SOFTIRQ], jiffies[STEAL], total)
    return cores


def read_cores() -> dict[int, CoreTime]:
    return parse_stat(Path("/proc/stat").read_text())


def cycles_per_second() -> float:
    """The nominal clock of the cores, in Hz, by which busy time becomes cycles."""
    found = re.search(r"^cpu MHz\s*: ([\d.]+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return float(found.group(1)) * 1e6 if found else 0.0
