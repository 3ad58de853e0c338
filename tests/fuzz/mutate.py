"""New scripts from old ones: steps are added, dropped, doubled, moved, taken from another script; arguments change byte by byte."""

from __future__ import annotations

import random

from fuzz.script import MOST_STEPS, Step, decode, encode

_BYTES = (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255)
_OPTIONS = (  # of TCP and IP: right ones, and ones whose length is wrong
    *(bytes((kind, length)) for kind in (2, 3, 4, 5, 8, 7, 68, 131, 254) for length in (0, 1, 2, 3, 4, 10, 11, 18, 40)),
    b"\x02\x04\x05\xb4",
    b"\x03\x03\x07",
    b"\x04\x02",
    b"\x08\x0a\0\0\0\x01\0\0\0\0",
    b"\x05\x0a\0\0\0\x01\0\0\0\x02",
    b"\x05\x0b\0\0\0\x01\0\0\0\x02\0",
    b"\x01\x01",
)
_MOST_ARGUMENTS = 24  # of a step made from nothing; mutation makes longer ones


def random_step(draw: random.Random, ops: int) -> Step:
    length = draw.choice((0, 2, 4, 6, 8, 12, 12, 16, _MOST_ARGUMENTS))
    arguments = [draw.choice(_BYTES) if draw.random() < 0.5 else draw.randrange(256) for _ in range(length)]
    return Step(draw.randrange(ops), bytes(arguments))


def random_script(draw: random.Random, ops: int) -> bytes:
    return encode([random_step(draw, ops) for _ in range(draw.choice((3, 6, 12, 25, MOST_STEPS)))])


def mutate(draw: random.Random, script: bytes, other: bytes, ops: int, most_bytes: int = 4096) -> bytes:
    """A script a few changes away from `script`; steps may come from `other`. `ops` is how many kinds of step there are."""
    steps = decode(script)
    donors = decode(other)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 5))):
        _CHANGES[draw.randrange(len(_CHANGES))](draw, steps, donors, ops)
    mutant = encode(steps[:MOST_STEPS])
    return mutant if len(mutant) <= most_bytes else script


def _insert(draw: random.Random, steps: list[Step], donors: list[Step], ops: int) -> None:
    steps.insert(draw.randint(0, len(steps)), random_step(draw, ops))


def _drop(draw: random.Random, steps: list[Step], donors: list[Step], ops: int) -> None:
    if steps:
        at = draw.randrange(len(steps))
        del steps[at : at + draw.choice((1, 1, 2, 5))]


def _double(draw: random.Random, steps: list[Step], donors: list[Step], ops: int) -> None:
    if steps:
        at, count = draw.randrange(len(steps)), draw.choice((1, 1, 2, 4))
        steps[at:at] = steps[at : at + count]


def _move(draw: random.Random, steps: list[Step], donors: list[Step], ops: int) -> None:
    if len(steps) > 1:
        steps.insert(draw.randrange(len(steps)), steps.pop(draw.randrange(len(steps))))


def _splice(draw: random.Random, steps: list[Step], donors: list[Step], ops: int) -> None:
    if donors:
        start = draw.randrange(len(donors))
        at = draw.randint(0, len(steps))
        steps[at:at] = donors[start : start + draw.choice((1, 2, 4, 10))]


def _change_op(draw: random.Random, steps: list[Step], donors: list[Step], ops: int) -> None:
    if steps:
        at = draw.randrange(len(steps))
        steps[at] = Step(draw.randrange(ops), steps[at].arguments)


def _change_argument(draw: random.Random, steps: list[Step], donors: list[Step], ops: int) -> None:
    if not steps:
        return
    index = draw.randrange(len(steps))
    step = steps[index]
    arguments = bytearray(step.arguments or bytes(4))
    at = draw.randrange(len(arguments))
    kind = draw.randrange(7)
    if kind == 0:
        arguments[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        arguments[at] = draw.choice(_BYTES)
    elif kind == 2:
        arguments[at] = (arguments[at] + draw.choice((-1, 1))) & 255
    elif kind == 3:
        arguments[at] = draw.randrange(256)
    elif kind == 4:
        arguments[at:at] = draw.choice(_OPTIONS)
    elif kind == 5:
        arguments[at:at] = draw.randbytes(draw.choice((1, 2, 4, 8)))
    else:
        del arguments[at : at + draw.choice((1, 2, 4))]
    steps[index] = Step(step.op, bytes(arguments[:255]))


_CHANGES = (_insert, _drop, _double, _move, _splice, _change_op, *[_change_argument] * 6)
