"""The grammar of `--impair`, and what a faulty wire does to frames. Text and numbers only: no record, nothing compiled.

    loss=1%,burst=5,reorder=2%,duplicate=1%,corrupt=0.1%,delay=10ms,jitter=2ms,rate=100mbit,mtu=600,seed=7

A key holds for both directions; `rx.` or `tx.` before it makes it hold for one, and then it wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from mpserve.dataplane.errors import SetupError

KEYS = "loss burst reorder hold duplicate corrupt delay jitter rate queue mtu".split()
DIRECTIONS = ("rx", "tx")
LONGEST_US = 60_000_000
LEAST_MTU, MOST_MTU = 68, 65_535  # RFC 791 section 3.2: every module forwards 68 octets
MOST_RATE = 10**12
QUEUED_FRAMES, FULL_FRAME_BITS = 16, 8 * 1514
_NEEDS = {"burst": "loss", "hold": "reorder", "jitter": "delay", "queue": "rate"}


def _check_range(name: str, value: float, low: float, high: float, shown: str) -> None:
    if not low <= value <= high:
        raise SetupError(f"{name} is out of range: give {shown}")


@dataclass(frozen=True)
class Faults:
    """What happens to the frames of one direction. Shares are from 0 to 1. Raises SetupError for what can't be."""

    loss: float = 0.0
    burst: float = 0.0  # frames lost in a row, on average; 0: each by itself
    reorder: float = 0.0
    hold_us: int = 1000  # how long a reordered frame is held back
    duplicate: float = 0.0
    corrupt: float = 0.0
    delay_us: int = 0
    jitter_us: int = 0
    rate: int = 0  # bit/s; 0: no limit
    queue_us: int = 0  # how long a frame may wait for the link; 0: 100 ms, at least what 16 full frames take
    mtu: int = 0  # 0: no limit

    def __post_init__(self) -> None:
        for name in ("loss", "reorder", "duplicate", "corrupt"):
            _check_range(name, getattr(self, name), 0.0, 1.0, "0% to 100%")
        for name in ("hold_us", "delay_us", "jitter_us", "queue_us"):
            _check_range(name.removesuffix("_us"), getattr(self, name), 0, LONGEST_US, "0s to 60s")
        if self.mtu:
            _check_range("mtu", self.mtu, LEAST_MTU, MOST_MTU, f"{LEAST_MTU} to {MOST_MTU} bytes")
        if self.rate:
            _check_range("rate", self.rate, 1000, MOST_RATE, "1kbit to 1000gbit")
        if self.jitter_us > self.delay_us:
            raise SetupError("jitter is more than delay: a frame can't arrive before it was sent")
        self._check_burst()

    def _check_burst(self) -> None:
        """A burst is at least one frame long, and gaps between bursts are too: so much loss needs bursts that long."""
        if not self.burst:
            return
        _check_range("burst", self.burst, 1.0, 1e6, "1 to 1000000 frames")
        least = self.loss / (1 - self.loss) if self.loss < 1 else 0.0
        if self.burst < least:
            raise SetupError(
                f"loss={self.loss:.6g} can't come in bursts of {self.burst:g}: give burst={least:.6g} or more"
            )

    @property
    def mean_burst(self) -> float:
        """Frames lost in a row on average: as given, or as it is when each is lost by itself."""
        return self.burst or (1 / (1 - self.loss) if self.loss < 1 else 1.0)

    @property
    def longest_wait_us(self) -> int:
        """How long a frame may wait for the link."""
        if self.queue_us or not self.rate:
            return self.queue_us
        return max(100_000, QUEUED_FRAMES * FULL_FRAME_BITS * 1_000_000 // self.rate)


@dataclass(frozen=True)
class Impairment:
    """The faults of both directions (rx: towards the server), and the seed that draws them."""

    rx: Faults = Faults()
    tx: Faults = Faults()
    seed: int = 0


def parse(text: str) -> Impairment:
    """`KEY=VALUE[,...]` as above. Raises SetupError: one line that says what to type."""
    try:
        return _parse(text)
    except SetupError as error:
        raise SetupError(f"--impair {text}: {error}") from None


def _parse(text: str) -> Impairment:
    given = _pairs(text)
    seed = int(given.pop("seed", 0))
    _check_company(given)
    rx, tx = (_faults(given, direction) for direction in DIRECTIONS)
    return Impairment(rx, tx, seed)


def _pairs(text: str) -> dict[str, Any]:
    """Key, with its direction, -> value."""
    given: dict[str, Any] = {}
    for word in text.split(","):
        key, equals, value = word.strip().partition("=")
        kind = _kind(key)
        if not equals or not value:
            raise SetupError(f"type {key}={_READERS[kind][1]}")
        if key in given:
            raise SetupError(f"{key} is given twice: leave one out")
        given[key] = _read(key, value)
    return given


def _kind(key: str) -> str:
    """The key without its direction."""
    direction, _, kind = key.rpartition(".")
    if kind == "seed" and not direction:
        return kind
    if kind not in KEYS or direction not in ("", *DIRECTIONS):
        raise SetupError(f"there is no {key!r}; there are {', '.join(KEYS)}, each also as rx.KEY or tx.KEY, and seed")
    return kind


def _check_company(given: Mapping[str, Any]) -> None:
    kinds = {_kind(key) for key in given}
    for key, needed in _NEEDS.items():
        if key in kinds and needed not in kinds:
            raise SetupError(f"{key} says nothing without {needed}: add {needed}={_READERS[needed][1]}")


def _faults(given: Mapping[str, Any], direction: str) -> Faults:
    mine = {key: given[key] for key in KEYS if key in given}
    mine |= {key: given[f"{direction}.{key}"] for key in KEYS if f"{direction}.{key}" in given}
    for key, needed in _NEEDS.items():
        if not mine.get(needed):
            mine.pop(key, None)  # it was meant for the other direction
    names = {field.name.removesuffix("_us"): field.name for field in fields(Faults)}
    return Faults(**{names[key]: value for key, value in mine.items()})


def _read(key: str, value: str) -> Any:
    reader, example = _READERS[_kind(key)]
    try:
        return reader(value.lower())
    except (ValueError, KeyError):
        raise SetupError(f"can't read {key}={value}: type such as {key}={example}") from None


_NUMBER = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)"


def _scaled(value: str, units: Mapping[str, float]) -> float:
    """A number with one of the units behind it."""
    match = re.fullmatch(_NUMBER + "([a-z%]*)", value)
    if match is None:
        raise ValueError(value)
    return float(match[1]) * units[match[2]]


def _share(value: str) -> float:
    return _scaled(value, {"%": 0.01, "": 1.0})


def _microseconds(value: str) -> int:
    return 0 if value == "0" else round(_scaled(value, {"us": 1, "ms": 1000, "s": 1_000_000}))


def _bits_per_second(value: str) -> int:
    return round(_scaled(value, {"bit": 1, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}))


def _frames(value: str) -> float:
    return _scaled(value, {"": 1.0})


def _whole(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise ValueError(value)
    return int(value)


def _positive(reader: Callable[[str], Any]) -> Callable[[str], Any]:
    """The same for keys where 0 would not be none of it but nonsense."""

    def read(value: str) -> Any:
        number = reader(value)
        if not number:
            raise ValueError(value)
        return number

    return read


_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "loss": (_share, "1%"),
    "burst": (_positive(_frames), "5"),
    "reorder": (_share, "2%"),
    "hold": (_positive(_microseconds), "1ms"),
    "duplicate": (_share, "1%"),
    "corrupt": (_share, "0.1%"),
    "delay": (_microseconds, "10ms"),
    "jitter": (_microseconds, "2ms"),
    "rate": (_positive(_bits_per_second), "100mbit"),
    "queue": (_positive(_microseconds), "50ms"),
    "mtu": (_positive(_whole), "600"),
    "seed": (_whole, "7"),
}
