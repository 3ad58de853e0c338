"""The experiments: what is asked, which servers under which loads, how the figures are drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mpserve.apps.load.plan import Plan
from mpserve.cli.bench import servers
from mpserve.cli.bench.rounds import Load
from mpserve.cli.bench.servers import Server

SIZES = (64, 256, 1024, 4096, 16_384, 65_536)
TRANSACTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
FRACTIONS = (0.05, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class Part:
    """Some servers under some loads, on one wire."""

    wire: str
    servers: Sequence[Server]
    loads: Sequence[Load]


@dataclass(frozen=True)
class Experiment:
    """`question` is what a reader wants to know, `reading` how the plot answers it, `limits` what it does not show.

    `draw` is the name of the function in `plots`; `x` gives the number at which a load stands on the x axis.
    """

    name: str
    title: str
    question: str
    reading: str
    limits: str
    parts: Sequence[Part]
    draw: str
    x: Callable[[str], float] = field(default=lambda load: float(load.split()[0]))


def _with(server: Server, name: str, label: str, *arguments: str) -> Server:
    """The server with more on its command line."""
    plain = server.argv
    return dataclasses.replace(server, name=name, label=label, argv=lambda wire, port: [*plain(wire, port), *arguments])


def _echo(*names: str) -> list[Server]:
    return [found for found in map(servers.find, names) if not found.obstacle]


def by_size() -> Experiment:
    loads = [Load(f"{size} bytes", Plan(message=size)) for size in SIZES]
    return Experiment(
        "sizes",
        "Throughput against message size",
        "How much faster is it, and does that hold for large messages? (MegaPipe, figure 5)",
        "Requests a second of echo, 64 connections, over a veth, against the size of a message. Where lines come together, "
        "moving bytes costs more than anything that a server does.",
        "Both axes are logarithmic. The veth's kernel part is in every line alike.",
        [Part("veth", _echo("compiled", "python", "asyncio-echo", "uvloop-echo"), loads)],
        "lines_of_rate",
    )


def by_transactions() -> Experiment:
    loads = [Load(f"{count} a connection", Plan(transactions=count)) for count in TRANSACTIONS]
    return Experiment(
        "transactions",
        "Throughput against transactions a connection",
        "What do short connections cost? (MegaPipe, figure 4; mTCP, figure 7)",
        "64-byte echo requests a second over a veth, 64 connections at a time, each closed by the generator after 1 to 128 "
        "requests. The left end is connection set-up and nothing else.",
        "The kernel's servers pay for part of their handshakes on the generator's core.",
        [Part("veth", _echo("compiled", "python", "asyncio-echo", "uvloop-echo"), loads)],
        "lines_of_rate",
    )


def ideas() -> Experiment:
    compiled, python = servers.find("compiled"), servers.find("python")
    batches = [_with(python, f"batch {n}", f"Python, batches of {n}", "--limit", f"event_batch={n}") for n in BATCHES]
    keep = [Load("64 connections", Plan())]
    short = [Load("64 at a time, 1 each", Plan(transactions=1))]
    fd = _with(compiled, "fd", "compiled, a descriptor each", "--limit", "handles=fd", "--max-connections", "512")
    return Experiment(
        "ideas",
        "What each idea is worth",
        "Which part of the design brings what? (MegaPipe, table 3; Fastsocket, table 1)",
        "Busy cycles a request of the server, less is better; over memif, so that no kernel is in them. Batching: events handed "
        "to Python 1 to 64 at a time. Lightweight sockets: connections of one request each, with and without a descriptor of the "
        "kernel's for each. Compiled: the same handler with no interpreter on the path.",
        "Partitioned listeners, local tables and receive flow deliver need several cores: see below.",
        [
            Part("memif", [*batches, compiled], keep),
            Part("memif", [compiled, fd, python], short),
        ],
        "bars_of_cycles",
    )


def applications() -> Experiment:
    http = ("fixed", "http", "nginx", "uvloop")
    memcached = ("mpserve-memcached", "memcached")
    return Experiment(
        "applications",
        "memcached and HTTP beside the originals",
        "What of that is left in whole servers? (MegaPipe, figures 6 and 7)",
        "Requests a second over a veth: GET of 64 bytes by HTTP, kept alive and with a connection for each; memcached's GET of 64 "
        "bytes that hits.",
        "Our HTTP and memcached handlers are plain Python so far.",
        [
            Part("veth", _echo(*http), [Load("HTTP, 64 connections", Plan(protocol="http"))]),
            Part("veth", _echo(*http), [Load("HTTP, 1 each", Plan(protocol="http", transactions=1))]),
            Part("veth", _echo(*memcached), [Load("memcached, 64 connections", Plan(protocol="memcached"))]),
        ],
        "bars_of_rate",
    )


def by_load() -> Experiment:
    most = Load("capacity", Plan())
    loads = [most, *(Load(f"{part:g} of capacity", most.plan, part, most.name) for part in FRACTIONS)]
    return Experiment(
        "latency",
        "Latency against load",
        "How long does a request take, from an idle server to twice what it can do?",
        "Percentiles of echo's latency over a veth, in an open loop at so much of the rate that each server reached in a closed "
        "one, timed from when each request was due. Beyond 1 the queue grows for as long as the run lasts: where the lines turn up "
        "is what counts there, not how high they go.",
        "64 connections; on a machine that others share the last percentiles are the machine's.",
        [Part("veth", _echo("compiled", "python", "asyncio-echo"), loads)],
        "lines_of_latency",
    )


ALL: tuple[Callable[[], Experiment], ...] = (by_size, by_transactions, ideas, applications, by_load)
