"""Which cores a server's workers run on: the grammar of `--cores`, the default, and what can't be."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mpserve.dataplane import kernel_link
from mpserve.dataplane.errors import SetupError

if TYPE_CHECKING:
    from mpserve.dataplane.device import DeviceSpec
    from mpserve.framework.handler import Handler

_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


def allowed_cores() -> list[int]:
    """The affinity mask: the cores that this process may run on; where the system doesn't say (macOS), all there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_text(value: Any) -> str:
    """A setting as text: `"0,2-5"`, `3` and `[0, 2]` may stand in mpserve.toml and in a program. Raises SetupError."""
    if isinstance(value, str):
        return value
    numbers = [value] if isinstance(value, int) else value
    if not isinstance(numbers, list | tuple | range) or not all(type(number) is int for number in numbers):
        raise SetupError(f"cores = {value!r}: give numbers and ranges, such as cores = '0,2-5'")
    return ",".join(map(str, numbers))


def parse_cores(text: str) -> list[int]:
    """`0,2-5` in the order given. Raises SetupError for what is no such list, and for a core that this process can't have."""
    allowed = allowed_cores()
    cores: list[int] = []
    for part in text.split(","):
        cores += _parse_part(text, part.strip(), allowed)
    twice = next((core for core in cores if cores.count(core) > 1), None)
    if twice is not None:
        raise SetupError(f"--cores {text} names core {twice} twice: type --cores {shorten(dict.fromkeys(cores))}")
    return cores


def accepting_cores(text: str, cores: Sequence[int]) -> Sequence[int]:
    """Which of a server's cores accept for a --listen: those behind the @, or all. Raises SetupError if no worker runs there."""
    where, at, named = text.partition("@")
    if not at:
        return cores
    found = [core for part in named.split(",") for core in _numbers(part.strip())]
    idle = [core for core in found if core not in cores]
    if not found or idle:
        what = f"no worker runs on core {shorten(idle)}" if idle else "cores stand behind the @"
        raise SetupError(f"--listen {text}: {what}: type --listen {where}@{shorten(cores)}, or change --cores")
    return found


def _numbers(part: str) -> Sequence[int]:
    """The cores of `3` or `2-5`; none if it is neither."""
    matched = _PART.fullmatch(part)
    return range(int(matched[1]), int(matched[2] or matched[1]) + 1) if matched is not None else ()


def _parse_part(text: str, part: str, allowed: list[int]) -> Iterable[int]:
    part_cores = _numbers(part)
    if not part_cores:
        raise SetupError(f"--cores {text}: type numbers and ranges, such as --cores {shorten(allowed)}")
    for core in part_cores:
        if core not in allowed:
            may = f"this process may run on {shorten(allowed)} alone: type --cores {shorten(allowed)}"
            raise SetupError(f"--cores {text}: core {core} isn't there, or is outside the affinity mask; {may}")
    return part_cores


def shorten(cores: Iterable[int]) -> str:
    """The cores as `--cores` takes them: 0,2-5."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def name_cores(cores: Sequence[int]) -> str:
    """`core 1` or `cores 0,2-5`, for a line of text."""
    return f"core{'s' * (len(cores) > 1)} {shorten(cores)}"


def choose_cores(text: str | None, spec: DeviceSpec, handler: type[Handler]) -> list[int]:
    """One core for each worker: those of `--cores`, else the default. Raises SetupError for more than the device serves."""
    if text is None:
        return _default_cores(spec, handler)
    cores = parse_cores(text)
    _check_count(cores, spec)
    return cores


def _default_cores(spec: DeviceSpec, handler: type[Handler]) -> list[int]:
    """The affinity mask, as far as the device has queues whose flows stay with them, and the handler doesn't want fewer."""
    most = spec.driver.max_queues if spec.driver.spreads and _can_share() else 1
    if spec.kind == "af_xdp" and kernel_link.exists(spec.name):
        most = min(most, kernel_link.rx_queues(spec.name))
    return allowed_cores()[: min(most, handler.default_workers or most)]


def _check_count(cores: list[int], spec: DeviceSpec) -> None:
    most, count = spec.driver.max_queues, len(cores)
    if count > most:
        raise SetupError(
            f"--device {spec} has {most} queue{'s' * (most > 1)}, so it serves as many workers, not {count}: "
            f"type --cores {shorten(cores[:most])}, or take --device veth"
        )
    if count > 1 and not _can_share():
        raise SetupError(f"several workers need Linux: type --cores {cores[0]}")


def _can_share() -> bool:
    """Whether several processes may have one port of the kernel's, or queues of one device."""
    return sys.platform == "linux"


def single_core(text: str | None, who: str) -> int | None:
    """The one core of `--cores`, None if it wasn't given. Raises SetupError for several: `who` runs on one."""
    if text is None:
        return None
    cores = parse_cores(text)
    if len(cores) > 1:
        raise SetupError(f"--cores {text}: {who} runs on one core: type --cores {cores[0]}")
    return cores[0]
