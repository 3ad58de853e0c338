"""The search at speed: the stack compiled with bounds checks. No coverage is to be had, so what guides it is the counters.

    NUMBA_BOUNDSCHECK=1 python -m fuzz.compiled SECONDS FOLDER SEED TARGET...

A script is kept (in FOLDER/compiled/TARGET) if a counter reaches a power of two that no script has taken it to before. What
the search by coverage keeps (in FOLDER/python/TARGET) is taken over as it comes. `FOLDER/current` holds the script that is
being run, in case the process dies of it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import mmap
import random
import sys
import time
import traceback
from pathlib import Path

from fuzz.mutate import mutate, random_script
from fuzz.targets import world_of
from mpserve.dataplane.jit import CHECKS

CORPUS = Path(__file__).with_name("corpus")
SLICE_SECONDS, REPORT_SECONDS, RELOAD_SECONDS = 2.0, 10.0, 60.0
CURRENT_BYTES = 1 << 16


class Search:
    """The search of one target."""

    def __init__(self, name: str, folder: Path, draw: random.Random) -> None:
        self.name, self.draw = name, draw
        self.world = world_of(name)
        self.kept_in = folder / "compiled" / name
        self.kept_in.mkdir(parents=True, exist_ok=True)
        self.sources = [CORPUS / name, self.kept_in, folder / "python" / name]
        self.corpus: list[bytes] = []
        self.known: set[str] = set()
        self.waiting: list[bytes] = []
        self.features: set[tuple[str, int]] = set()
        self.is_given = False  # whether the script at hand comes from a folder
        self.executions = 0
        self.load()

    def load(self) -> None:
        """Look for scripts that others have found."""
        for path in (path for source in self.sources if source.is_dir() for path in source.iterdir()):
            if path.name not in self.known:
                self.known.add(path.name)
                with contextlib.suppress(FileNotFoundError):  # libFuzzer puts a shorter one in its place
                    self.waiting.append(path.read_bytes())

    def choose(self) -> bytes:
        """The next script to run."""
        self.is_given = bool(self.waiting) or not self.corpus
        if self.waiting:
            return self.waiting.pop()
        if not self.corpus or self.draw.random() < 0.02:
            return random_script(self.draw, len(self.world.steps))
        base = self.draw.choice(self.corpus[-50:] if self.draw.random() < 0.3 else self.corpus)
        return mutate(self.draw, base, self.draw.choice(self.corpus), len(self.world.steps))

    def run(self, script: bytes) -> None:
        self.world.run(script)
        self.executions += 1
        counters = self.world.stack.core.counters
        reached = {(name, int(counters[name]).bit_length()) for name in counters.dtype.names} - self.features
        if reached or self.is_given:
            self.features |= reached
            self.corpus.append(script)
        if reached:
            path = self.kept_in / hashlib.sha1(script).hexdigest()
            self.known.add(path.name)
            path.write_bytes(script)


def main() -> int:
    seconds, folder, seed = float(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    assert CHECKS, "set NUMBA_BOUNDSCHECK=1"
    faulthandler.enable()
    searches = [Search(name, folder, random.Random(f"{seed} {name}")) for name in sys.argv[4:]]
    started = time.monotonic()
    try:
        return _search_all(searches, started + seconds, folder)
    except KeyboardInterrupt:
        return 130
    finally:
        _report(searches, time.monotonic() - started)


def _search_all(searches: list[Search], until: float, folder: Path) -> int:
    """Each target in turn for a slice of the time; 1 as soon as something is found."""
    current = _current(folder / "current")
    started = reported = loaded = time.monotonic()
    while (now := time.monotonic()) < until:
        for search in searches:
            slice_ends = min(time.monotonic() + SLICE_SECONDS, until)
            while time.monotonic() < slice_ends:
                if not _try(search, search.choose(), current, folder):
                    return 1
        if now - reported >= REPORT_SECONDS:
            reported = now
            _report(searches, now - started)
        if now - loaded >= RELOAD_SECONDS:
            loaded = now
            for search in searches:
                search.load()
    return 0


def _current(path: Path) -> mmap.mmap:
    with path.open("wb+") as file:
        file.truncate(CURRENT_BYTES)
        return mmap.mmap(file.fileno(), CURRENT_BYTES)


def _try(search: Search, script: bytes, current: mmap.mmap, folder: Path) -> bool:
    """Run a script; False, with the script saved, if something is wrong."""
    note = f"{search.name}\n{len(script)}\n".encode() + script
    current[: min(len(note), CURRENT_BYTES)] = note[:CURRENT_BYTES]
    try:
        search.run(script)
    except (Exception, SystemError):
        traceback.print_exc()
        saved = folder / "findings" / f"{search.name}-{hashlib.sha1(script).hexdigest()[:12]}"
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_bytes(script)
        print(f"FOUND by {search.name}: {saved}", flush=True)
        return False
    return True


def _report(searches: list[Search], elapsed: float) -> None:
    total = sum(search.executions for search in searches)
    each = " ".join(f"{s.name} {s.executions}/{len(s.corpus)}/{len(s.features)}" for s in searches)
    cpu = time.process_time()
    print(
        f"{elapsed:6.0f} s  {total} runs  {total / elapsed:.0f}/s  {cpu:.0f} s CPU  runs/corpus/features: {each}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
