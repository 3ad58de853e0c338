"""The bounds of a core's pools. No numpy here: the supervisor checks settings without loading the stack."""

from dataclasses import dataclass

from mpserve.dataplane.errors import SetupError

BURST = 32  # frames asked for at a time
BLOCK_BYTES = 2048  # of send buffers, unread and out-of-order data
EVENT_ROWS = 1024  # more than a batch: one burst may finish after the batch is full
CONGESTION_CONTROLS = ("cubic", "newreno")
FRAGMENT_POLICIES = ("reassemble", "refuse")
ACCEPT_QUEUES = ("partitioned", "shared")
HANDLES = ("lwsocket", "fd")


@dataclass(frozen=True)
class Limits:
    """Every pool of a core is bounded; these are the bounds. Counts, but where the name says bytes or seconds."""

    max_connections: int = 65_536
    syn_backlog: int = 1024
    accept_queue: int = 1024
    time_wait: int = 16_384
    neighbors: int = 1024
    blocks: int = 32_768  # of 2 KiB, for send buffers, unread and out-of-order data
    event_batch: int = 256
    rcvbuf_bytes: int = 262_144  # a connection's receive window at first ...
    rcvbuf_max_bytes: int = 65_535 << 8  # ... and as far as it may grow while half of the blocks are free
    sndbuf_bytes: int = 262_144
    sndbuf_max_bytes: int = 33_554_432
    msl_seconds: float = 1.0  # TIME_WAIT lasts twice this
    fin_wait_seconds: float = 60.0  # FIN_WAIT_2 and unanswered FINs of a closed handle
    retries: int = 10  # retransmissions of one segment before the connection is given up
    syn_retries: int = 7  # of an active open: given up after 183 s (RFC 9293 section 3.8.3)
    syn_ack_retries: int = 5
    congestion: str = "cubic"  # or "newreno"
    fragments: str = "reassemble"  # or "refuse": of IPv4
    # What many cores are compared with (docs/cores.md); nobody gains by these.
    accept: str = "partitioned"  # or "shared": one accept queue for all cores, behind a lock
    handles: str = "lwsocket"  # or "fd": a file descriptor of the kernel's for each connection
    receive_flow_deliver: bool = True  # outgoing connections choose a port whose replies come to their core

    def __post_init__(self) -> None:
        for name, low, high in (
            ("max_connections", 1, 1 << 22),
            ("syn_backlog", 1, 1 << 16),
            ("accept_queue", 1, 1 << 16),
            ("time_wait", 1, 1 << 22),
            ("neighbors", 4, 1 << 16),
            ("blocks", 16, 1 << 22),
            ("event_batch", 1, EVENT_ROWS - 3 * BURST),
            ("rcvbuf_bytes", 2048, 1 << 28),
            ("sndbuf_bytes", 2048, 1 << 28),
            ("rcvbuf_max_bytes", 0, 1 << 28),
            ("sndbuf_max_bytes", 0, 1 << 28),
            ("retries", 1, 20),
            ("syn_retries", 1, 10),
            ("syn_ack_retries", 1, 10),
        ):
            if not low <= getattr(self, name) <= high:
                raise SetupError(f"{name} = {getattr(self, name)} is out of range: give {low} to {high}")
        if self.fragments not in FRAGMENT_POLICIES:
            raise SetupError(f"fragments = {self.fragments!r}: there are {' and '.join(FRAGMENT_POLICIES)}")
        if self.congestion not in CONGESTION_CONTROLS:
            raise SetupError(f"congestion = {self.congestion!r}: there are {' and '.join(CONGESTION_CONTROLS)}")
        if self.accept not in ACCEPT_QUEUES:
            raise SetupError(f"accept = {self.accept!r}: there are {' and '.join(ACCEPT_QUEUES)}")
        if self.handles not in HANDLES:
            raise SetupError(f"handles = {self.handles!r}: there are {' and '.join(HANDLES)}")


DEFAULTS = Limits()
