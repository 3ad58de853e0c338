"""The search by coverage: the stack as plain Python, instrumented by atheris, which drives libFuzzer.

NUMBA_DISABLE_JIT=1 python -m fuzz.guided TARGET [libFuzzer's flags and folders]
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

from fuzz.mutate import mutate

# Not the stack itself: nothing is learnt from having been there.
_UNCOVERED = ["mpserve.testing", *(f"mpserve.dataplane.{name}" for name in ("memory", "jit", "layout", "siphash"))]
_UNCOVERED += [f"mpserve.testing.{path.stem}" for path in Path(__file__).parents[2].joinpath("testing").glob("*.py")]


def main() -> None:
    name, *flags = sys.argv[1:]
    with atheris.instrument_imports(include=["mpserve"], exclude=_UNCOVERED):
        from fuzz.plain import quicken
        from fuzz.targets import world_of

        quicken()
        world = world_of(name)
    ops = len(world.steps)

    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if draw.random() < 0.1:
            return bytes(atheris.Mutate(data, max_size))
        return mutate(draw, data, b"", ops, max_size)[:max_size]

    def crossed(data: bytes, other: bytes, max_size: int, seed: int) -> bytes:
        return mutate(random.Random(seed), data, other, ops, max_size)[:max_size]

    atheris.Setup([sys.argv[0], *flags], world.run, custom_mutator=mutated, custom_crossover=crossed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
