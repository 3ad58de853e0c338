"""The series of runs behind the tables: which servers, under which loads, on which wire."""

from collections.abc import Sequence
from dataclasses import dataclass

from mpserve.apps.load.plan import Plan
from mpserve.cli.bench import servers
from mpserve.cli.bench.rounds import Load
from mpserve.cli.bench.servers import Server


@dataclass(frozen=True)
class Series:
    """One table. `short` are the loads that README.md shows."""

    title: str
    wire: str
    names: str
    loads: Sequence[Load]
    against: str
    short: Sequence[str]

    @property
    def servers(self) -> list[Server]:
        """Those that are installed."""
        return [server for server in map(servers.find, self.names.split(",")) if not server.obstacle]


_MOST = Load("as fast as it goes", Plan())
ALL = (
    Series(
        "HTTP, a 64-byte body, over a veth",
        "veth",
        "fixed,http,nginx,uvloop,asyncio,granian,uvicorn",
        [
            *(Load(f"{n} connections", Plan(protocol="http", connections=n)) for n in (1, 64, 256)),
            Load("64 at a time, 1 request each", Plan(protocol="http", transactions=1)),
        ],
        "nginx",
        ("1 connections", "64 connections", "64 at a time, 1 request each"),
    ),
    Series(
        "memcached, GET of 64 bytes that hits, over a veth",
        "veth",
        "mpserve-memcached,memcached",
        [Load("64 connections", Plan(protocol="memcached"))],
        "memcached",
        ("64 connections",),
    ),
    Series(
        "Echo of 64 bytes and its latency, over a veth",
        "veth",
        "compiled,python,asyncio-echo,uvloop-echo",
        [
            Load("1 connection", Plan(connections=1)),
            _MOST,
            Load("half of that, open loop", _MOST.plan, 0.5, _MOST.name),
        ],
        "asyncio-echo",
        (),
    ),
    Series(
        "Echo of 64 bytes over memif: no kernel between",
        "memif",
        "compiled,python",
        [
            *(Load(f"{n} connections", Plan(connections=n)) for n in (1, 16, 64, 256)),
            Load("64 at a time, 1 request each", Plan(transactions=1)),
        ],
        "python",
        ("64 connections", "64 at a time, 1 request each"),
    ),
    Series(
        "Frames without TCP over memif: the limit",
        "memif",
        "raw",
        [Load("64 bytes", Plan(protocol="raw"))],
        "raw",
        ("64 bytes",),
    ),
)
