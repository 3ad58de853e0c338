"""The corpus again: every script that was worth keeping still does no harm; and the fuzzer would notice if one did."""

from pathlib import Path

import pytest

from fuzz.targets import NAMES, world_of
from mpserve.dataplane.jit import JIT

CORPUS = Path(__file__).with_name("corpus")
EVERY = 1 if JIT else 40  # as plain Python only some: `make fuzz MODE=python` runs them all
MOST_BYTES = 1 << 20


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_does_no_harm(name: str) -> None:
    world = world_of(name)
    scripts = sorted(CORPUS.joinpath(name).iterdir())[::EVERY]
    assert scripts
    try:
        for path in scripts:
            try:
                world.run(path.read_bytes())
            except Exception as error:
                error.add_note(f"the script is {path}")
                raise
    finally:
        world.stack.close()


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST_BYTES
