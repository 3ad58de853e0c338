"""The measurements of a run: each server under each load, in rounds, so that a slow minute of the machine hits them all."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mpserve.apps.load.plan import Plan
from mpserve.cli.bench.cycles import Meter
from mpserve.cli.bench.generator import Generator, generating
from mpserve.cli.bench.servers import Server, running
from mpserve.cli.bench.wires import make_wire
from mpserve.dataplane.errors import SetupError

PORT = 8000
FILL_SECONDS = 0.7  # for a server that needs something to answer with
Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class Load:
    """A plan under the name that tables have for it. `fraction`: an open loop at so much of `of`'s rate, measured before."""

    name: str
    plan: Plan
    fraction: float = 0.0
    of: str = ""


@dataclass(frozen=True)
class Run:
    """Servers and loads on one kind of wire."""

    wire: str
    servers: Sequence[Server]
    loads: Sequence[Load]
    rounds: int = 3
    seconds: float = 2.0

    @property
    def steps(self) -> int:
        return self.rounds * len(self.servers) * len(self.loads)


def carry_out(run: Run, on_step: Callable[[str], None], keep: Callable[[Samples], None]) -> Samples:
    """All measurements, in order; `on_step` is told before each, `keep` gets all there are after each server."""
    samples: Samples = []
    for number in range(run.rounds):
        for server in run.servers:
            for sample in _measure_server(run, server, on_step):
                samples.append({"server": server.name, "wire": run.wire, "round": number} | sample)
            keep(samples)
    return samples


def _measure_server(run: Run, server: Server, on_step: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """A sample for each load on one start of the server. A failure becomes a sample that says so."""
    try:
        with _both(run, server) as (generator, pid):
            meter = Meter(pid if server.is_ours and server.counts else None)
            _fill(server, generator, run.loads[0].plan)
            rates: dict[str, float] = {}
            for load in run.loads:
                on_step(f"{server.label}: {load.name}")
                sample = _measure(run, load, generator, meter, rates)
                rates[load.name] = sample["rate"]
                yield sample
    except SetupError as failure:
        yield {"load": "", "failed": str(failure)}


@contextlib.contextmanager
def _both(run: Run, server: Server) -> Iterator[tuple[Generator, int]]:
    """Server and generator. The server of a memif ends first: the other end unmaps its memory."""
    with make_wire(run.wire, kernel_address=not server.is_ours) as wire, contextlib.ExitStack() as stack:
        started = contextlib.ExitStack()
        process = started.enter_context(running(server, wire, PORT))
        try:
            generator = stack.enter_context(generating(wire, PORT))
            yield generator, process.pid
        finally:
            with _signals_wait():
                started.close()


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """A second Ctrl-C does not keep a server from being stopped."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fill(server: Server, generator: Generator, plan: Plan) -> None:
    """memcached's keys."""
    if server.protocol == "memcached":
        generator.measure(
            Plan(protocol="memcached-set", connections=16, message=plan.message, keys=plan.keys), FILL_SECONDS
        )


def _measure(run: Run, load: Load, generator: Generator, meter: Meter, rates: dict[str, float]) -> dict[str, Any]:
    plan = load.plan
    if load.fraction:
        import dataclasses

        plan = dataclasses.replace(plan, rate=load.fraction * rates[load.of])
    warm_up = 0.3
    meter.start()
    sample = generator.measure(plan, run.seconds, warm_up)
    # The meter has counted the warm-up too: at the rate that was measured.
    requests = sample["requests"] * (1 + warm_up / max(sample["seconds"], 1e-9))
    sample["cycles"] = meter.cycles(int(requests), sample["tsc_hz"])
    return sample | {"load": load.name, "closes_first": plan.who_closes, "rate_asked": plan.rate}
