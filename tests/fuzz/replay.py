"""One script again, step by step; with --shrink, first made as short as still fails in the same place.

NUMBA_DISABLE_JIT=1 python -m fuzz.replay TARGET FILE [--shrink]
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Iterator
from pathlib import Path

from fuzz.script import Arguments, Step, decode, encode
from fuzz.stack import FuzzStack
from fuzz.steps import Do
from fuzz.targets import world_of
from mpserve.dataplane.jit import JIT


def failure(name: str, script: bytes) -> str:
    """Where the script fails, as type, file and line; "" if it doesn't."""
    world = world_of(name)
    try:
        world.run(script)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} {last.filename}:{last.lineno}"
    finally:
        world.stack.close()
    return ""


def shrink(name: str, script: bytes) -> bytes:
    """The shortest script found that fails where this one does."""
    place = failure(name, script)
    assert place, "it does not fail"
    steps, is_shorter = decode(script), True
    while is_shorter:
        is_shorter = False
        for candidate in _shorter(steps):
            if failure(name, encode(candidate)) == place:
                steps, is_shorter = candidate, True
                break
    return encode(steps)


def _shorter(steps: list[Step]) -> Iterator[list[Step]]:
    """The same with a run of steps left out, the longest first; then with fewer or plainer arguments."""
    length = len(steps)
    while length > 0:
        for at in range(0, len(steps) - length + 1):
            yield steps[:at] + steps[at + length :]
        length //= 2
    for at, (op, arguments) in enumerate(steps):
        for end in sorted({0, len(arguments) // 2, len(arguments) - 1}):
            if 0 <= end < len(arguments):
                yield [*steps[:at], Step(op, arguments[:end]), *steps[at + 1 :]]
        for byte in range(len(arguments)):
            if arguments[byte]:
                yield [*steps[:at], Step(op, arguments[:byte] + b"\0" + arguments[byte + 1 :]), *steps[at + 1 :]]


def show(name: str, script: bytes) -> None:
    world = world_of(name)

    def shown(do: Do) -> Do:
        def step(stack: FuzzStack, arguments: Arguments) -> None:
            print(f"{stack.at():12} us  {do.__name__:18} {arguments.data.hex()}")
            do(stack, arguments)

        return step

    world.steps = [shown(do) for do in world.steps]
    world.run(script)
    print("no failure")


def main() -> None:
    parser = argparse.ArgumentParser(prog="fuzz.replay", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("file", type=Path)
    parser.add_argument("--shrink", action="store_true")
    options = parser.parse_args()
    if not JIT:
        from fuzz.plain import quicken

        quicken()
    script = options.file.read_bytes()
    if options.shrink:
        script = shrink(options.target, script)
        options.file.write_bytes(script)
    show(options.target, script)


if __name__ == "__main__":
    main()
