"""Shows on stderr how far compiling is: a moving bar on a terminal, a line a unit elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any


class Progress:
    """`with Progress(total) as p: p.show(name, done)`; `name` is the unit that starts now, `done` how many are done."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._started = time.monotonic()
        title = f"compiling the TCP stack, once: {self._total} units"
        if sys.stderr.isatty():
            self._start_bar(title)
        else:
            print(title, file=sys.stderr, flush=True)
        return self

    def _start_bar(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True))
        self._bar.start()
        self._task = self._bar.add_task(title, total=self._total)

    def show(self, name: str, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=f"compiling {name}")
        elif done < self._total:
            elapsed = time.monotonic() - self._started
            print(f"compiling {name} ({done} of {self._total} done, {elapsed:.0f} s)", file=sys.stderr, flush=True)

    def __exit__(self, kind: object, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            print(f"compiled in {time.monotonic() - self._started:.0f} s", file=sys.stderr, flush=True)
