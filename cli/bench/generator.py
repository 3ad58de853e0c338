"""The load generator's process, as whoever measures sees it: `Generator.measure(plan)`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from mpserve.apps.load.plan import Plan
from mpserve.cli.bench.wires import GENERATOR_ADDRESS, PREFIX_LENGTH, SERVER_ADDRESS, Wire
from mpserve.dataplane.errors import SetupError


class Generator:
    """One process on a wire, for any number of loads after one another."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self, plan: Plan, seconds: float, warm_up: float = 0.3) -> dict[str, Any]:
        """See `mpserve.apps.load.generator.Generator.result`. Raises SetupError if the server does not answer."""
        self._order(plan, seconds, warm_up)
        return self.wait_for("measured")

    def begin(self, plan: Plan, seconds: float) -> None:
        """The same, up to the moment when the connections are there; `wait_for("measured")` has the rest."""
        self._order(plan, seconds, 0.0)
        self.wait_for("open")

    def _order(self, plan: Plan, seconds: float, warm_up: float) -> None:
        order = {"plan": dataclasses.asdict(plan), "seconds": seconds, "warm_up": warm_up}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def wait_for(self, event: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if message["event"] == event:
                return message
            if message["event"] == "failed":
                raise SetupError(f"the load generator: {message['message']}")
        raise SetupError("the load generator ended: run it by itself, python -m mpserve.apps.load.process --help")


@contextlib.contextmanager
def generating(wire: Wire, port: int) -> Iterator[Generator]:
    """A generator at the wire's other end. Leave this block only when a memif's server has stopped: it unmaps the memory."""
    # fmt: off
    argv = [*wire.generator_prefix, sys.executable, "-m", "mpserve.apps.load.process", wire.generator_device,
            "--ip", f"{GENERATOR_ADDRESS}/{PREFIX_LENGTH}", "--server", SERVER_ADDRESS, "--port", str(port)]
    # fmt: on
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=wire.folder)
    try:
        generator = Generator(process)
        generator.wait_for("ready")
        yield generator
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
