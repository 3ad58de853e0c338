"""DPDK's log: kept in memory, not printed, so that an error can show DPDK's own reason."""

import re

from pydpdk.codes import call, check
from pydpdk.extension import ffi, lib

SIZE_BYTES = 65536
LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")  # rte_log.h, from 1


def keep() -> None:
    """Send DPDK's log to memory from now on. rte_openlog_stream."""
    check("rte_openlog_stream", lib.pydpdk_log_keep())


def read() -> str:
    """What DPDK has logged, at most the last 64 KiB."""
    room = ffi.new("char[]", SIZE_BYTES)
    length = lib.pydpdk_log_read(room, SIZE_BYTES)
    return ffi.unpack(room, length).decode(errors="replace") if length else ""


def set_level(level: str, pattern: str = "") -> None:
    """Log what is at least as grave as `level`, one of LEVELS: everywhere, or in the components whose names match the
    shell pattern. rte_log_set_global_level, rte_log_set_level_pattern."""
    number = LEVELS.index(level) + 1
    if pattern:
        call("rte_log_set_level_pattern", pattern.encode(), number)
    else:
        lib.rte_log_set_global_level(number)


_GRAVE = re.compile(
    r"error|fail|fatal|cannot|can't|could not|couldn't|invalid|unable|unrecognized|not found|no such", re.I
)


def reason(lines: str) -> str:
    """The lines that read like reasons, joined, without the repetitions; all that there is if none does."""
    said = [re.sub(r"^\w+: ", "", line).strip() for line in lines.splitlines() if line.strip()]
    grave = [line for line in said if _GRAVE.search(line)]
    return "; ".join(dict.fromkeys((grave or said)[-4:]))
