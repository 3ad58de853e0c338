"""An input: a list of steps, each a byte that chooses what to do and up to 255 bytes of arguments.

Every byte string is a script, and arguments that are missing are zero, so that whatever a fuzzer cuts or joins means something.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
MOST_STEPS = 60  # of a script: the rest is not looked at


class Step(NamedTuple):
    op: int
    arguments: bytes


def decode(data: bytes) -> list[Step]:
    """The steps: op, length of the arguments, arguments."""
    steps: list[Step] = []
    at = 0
    while at < len(data) and len(steps) < MOST_STEPS:
        length = data[at + 1] if at + 1 < len(data) else 0
        steps.append(Step(data[at], data[at + 2 : at + 2 + length]))
        at += 2 + length
    return steps


def encode(steps: Sequence[Step]) -> bytes:
    return b"".join(bytes((op & 255, min(len(args), 255))) + args[:255] for op, args in steps)


NEAR = (
    0,
    0,
    0,
    0,
    0,
    1,
    -1,
    2,
    -2,
    7,
    100,
    -100,
    536,
    -536,
    1460,
    -1460,
    4096,
    8191,
    8192,
    65_535,
    -65_535,
    1 << 20,
    -(1 << 31),
)


class Arguments:
    """Reads the arguments of a step one by one."""

    def __init__(self, data: bytes) -> None:
        self.data, self._at = data, 0

    def byte(self) -> int:
        value = self.data[self._at] if self._at < len(self.data) else 0
        self._at += 1
        return value

    def word(self) -> int:
        """16 bits."""
        return self.byte() << 8 | self.byte()

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.byte() % len(choices)]

    def near(self) -> int:
        """A distance, mostly small: one of NEAR, or 16 bits with a sign, shifted by 0 to 15."""
        choice = self.byte()
        if choice < 0xE0:
            return NEAR[choice % len(NEAR)]
        return ((self.word() ^ 0x8000) - 0x8000) << (choice & 15)

    def rest(self) -> bytes:
        data, self._at = self.data[self._at :], len(self.data)
        return data
