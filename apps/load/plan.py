"""`Plan`: what a load is. Checked here, so that compiled code gets nothing that it can't do."""

from __future__ import annotations

from dataclasses import dataclass

from mpserve.apps.load.records import FIXED, HTTP, MEMCACHED
from mpserve.dataplane.errors import SetupError

MOST_REQUEST_BYTES = 1 << 16
KINDS = {"echo": FIXED, "raw": FIXED, "http": HTTP, "memcached": MEMCACHED, "memcached-set": FIXED}
STORED = b"STORED\r\n"
KEY_DIGITS = 10


@dataclass(frozen=True)
class Plan:
    """`connections` ask for `message` bytes each time (echo: and get as many back), `pipeline` requests at once.

    `transactions` is how many requests a connection makes before it ends, 0 without end; `closes_first` says whether the
    generator ends it, or waits for the server to. `rate` is requests a second over all connections (an open loop: latency
    counts from when a request was due), 0 for as fast as replies come.
    """

    protocol: str = "echo"
    connections: int = 64
    message: int = 64
    pipeline: int = 1
    transactions: int = 0
    closes_first: bool = True
    rate: float = 0.0
    path: str = "/"
    keys: int = 10_000  # memcached: GETs are spread evenly over so many

    def __post_init__(self) -> None:
        if self.protocol not in KINDS:
            raise SetupError(f"--protocol {self.protocol}: there are {', '.join(KINDS)}")
        for name, low, high in (
            ("connections", 1, 1 << 20),
            ("message", 1, MOST_REQUEST_BYTES),
            ("pipeline", 1, 1024),
            ("transactions", 0, 1 << 40),
            ("rate", 0, 1e9),
            ("keys", 1, 10**KEY_DIGITS),
        ):
            if not low <= getattr(self, name) <= high:
                raise SetupError(f"{name} = {getattr(self, name)} is out of range: give {low} to {high:g}")
        if self.rate and self.pipeline > 1:
            raise SetupError("an open loop makes one request at a time: leave out --pipeline or --rate")
        if self.pipeline * len(self.request) > 1 << 20:
            raise SetupError(f"{self.pipeline} requests of {len(self.request)} bytes at once: a MiB at most")

    @property
    def kind(self) -> int:
        return KINDS[self.protocol]

    @property
    def request(self) -> bytes:
        """One request. memcached's has the digits of key 0."""
        if self.protocol in ("echo", "raw"):
            return (bytes(range(32, 127)) * (self.message // 95 + 1))[: self.message]
        if self.protocol == "http":
            last = "Connection: close\r\n" if self.transactions == 1 and not self.closes_first else ""
            return f"GET {self.path} HTTP/1.1\r\nHost: bench\r\n{last}\r\n".encode()
        if self.protocol == "memcached-set":
            return b"set %s 0 0 %d\r\n%s\r\n" % (self.key(0), self.message, self.body(0))
        return b"get " + self.key(0) + b"\r\n"

    @property
    def reply_bytes(self) -> int:
        """The length of a reply, where it is known before; memcached's of a hit."""
        if self.protocol == "memcached":
            return len(self.value(0)) + len(b"END\r\n")
        return len(STORED) if self.protocol == "memcached-set" else self.message

    @property
    def key_at(self) -> int:
        return self.request.index(self.key(0)) + len(self.key(0)) - KEY_DIGITS if self.has_keys else 0

    @property
    def has_keys(self) -> bool:
        return self.protocol in ("memcached", "memcached-set")

    @staticmethod
    def key(number: int) -> bytes:
        return b"key:%0*d" % (KEY_DIGITS, number)

    def body(self, number: int) -> bytes:
        """A key's value."""
        return (b"%d " % number * self.message)[: self.message]

    def value(self, number: int) -> bytes:
        """What memcached says of a key before END."""
        return b"VALUE %s 0 %d\r\n%s\r\n" % (self.key(number), self.message, self.body(number))

    @property
    def who_closes(self) -> str:
        """Which side ends a connection first, for the table."""
        if not self.transactions:
            return "nobody"
        return "the generator" if self.closes_first else "the server"
