"""Devices: where frames come from. The grammar of `--device`, and one table of what each driver can and cannot do.

Nothing here touches DPDK or the kernel: `device_port` opens the port, `links` makes kernel interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Driver:
    """What one kind of device can and cannot do. `pmd` is DPDK's driver name, "" where the user names it."""

    pmd: str
    argument: str  # what stands behind the colon, as a user would type it; "" if nothing may
    options: frozenset[str] = frozenset()
    interface: str = ""  # "made": mpserve makes the kernel interface; "given": the user names one that exists
    needs_root: bool = True
    unfinished_checksums: bool = False  # a local kernel peer may leave TCP checksums to an offload that never happens
    frames_above_mtu: bool = False  # a local kernel peer may hand over GSO frames of up to 64 KiB
    sleeps: bool = False  # there is a file descriptor to wait on while idle
    several: str = "one"  # how several workers use it: a key of SEVERAL
    max_queues: int = 1
    closing_hurts: bool = False  # DPDK's driver takes down at closing what the other workers still use
    spreads: bool = False  # by default it has a worker on each core: flows keep to their queue, or are steered there
    about: str = ""


# How several workers, a process each, use one device of a kind.
SEVERAL = {
    "each": "every worker opens the device by itself, on a queue of its own",
    "shared": "one process opens it with a queue for each worker, and the workers attach to that (shared_port)",
    "one": "one worker only",
}


def _options(text: str) -> frozenset[str]:
    return frozenset(text.split())


# DPDK 22.11 and Linux 6.x. No driver here computes or checks TCP checksums for us: the stack does, in software.
DRIVERS: dict[str, Driver] = {
    "veth": Driver(
        "",
        "[NAME]",
        _options("driver mtu"),
        interface="made",
        sleeps=True,
        several="each",
        spreads=True,
        max_queues=16,
        about="a veth pair made and removed by mpserve: af_xdp on our end where BPF programs load, else af_packet",
    ),
    "tap": Driver(
        "net_tap",
        "[NAME]",
        _options("mtu mac"),
        interface="made",
        sleeps=True,
        several="each",
        spreads=True,
        max_queues=16,
        closing_hurts=True,
        about="a tap made and removed by mpserve; one frame a system call",
    ),
    "af_packet": Driver(
        "net_af_packet",
        "IFACE",
        _options("mac offloads frames"),
        interface="given",
        unfinished_checksums=True,
        frames_above_mtu=True,
        sleeps=True,
        several="each",
        spreads=True,
        max_queues=16,
        about="a packet socket on an interface that exists; the kernel sees the frames too",
    ),
    "af_xdp": Driver(
        "net_af_xdp",
        "IFACE",
        _options("offloads force_copy busy_budget"),
        interface="given",
        unfinished_checksums=True,
        sleeps=True,
        several="each",
        spreads=True,
        max_queues=64,
        closing_hurts=True,
        about="an AF_XDP socket on an interface that exists; the kernel no longer sees the frames",
    ),
    "memif": Driver(
        "net_memif",
        "SOCKET",
        _options("role id rsize bsize secret"),
        needs_root=False,
        several="shared",
        max_queues=16,
        about="shared memory between two processes",
    ),
    "pcap": Driver(
        "net_pcap",
        "IN[,OUT]",
        _options("mac"),
        needs_root=False,
        about="frames from a capture file, replies into another",
    ),
    "ring": Driver(
        "net_ring", "", needs_root=False, several="shared", max_queues=16, about="what is sent is received: for tests"
    ),
    "pci": Driver(
        "", "BDF", _options("devargs"), several="shared", max_queues=64, about="a NIC bound to vfio-pci or uio"
    ),
    "vdev": Driver(
        "",
        "NAME[,KEY=VALUE...]",
        several="shared",
        max_queues=16,
        about="any DPDK virtual device, its arguments as DPDK takes them",
    ),
    "kernel": Driver(
        "",
        "",
        needs_root=False,
        sleeps=True,
        max_queues=1024,
        spreads=True,
        about="kernel sockets, not the stack; no DPDK",
    ),
}


@dataclass(frozen=True)
class DeviceSpec:
    """A parsed device: `kind` is a key of DRIVERS, `name` an interface, socket, file or address, "" if not given."""

    kind: str
    name: str = ""
    options: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def driver(self) -> Driver:
        return DRIVERS[self.kind]

    @property
    def is_port(self) -> bool:
        """Whether it is a DPDK port: kernel sockets are none."""
        return self.kind != "kernel"

    def __str__(self) -> str:
        words = [self.name] if self.name else []
        words += [value if key == "out" else f"{key}={value}" for key, value in self.options.items()]
        return self.kind + (":" + ",".join(words) if words else "")


@dataclass
class Device:
    """An open DPDK port and one of its queues, for the process that opened it: `queue` is that of `rx` and `tx`, on `port_id`.

    `pool`, `rx`, `tx`, `alloc` and `free` are addresses: of the rte_mempool that frames to send come from, and of
    pydpdk's burst functions. `wait_fds` become readable when a frame arrives. Where several workers
    get flows by a hash that we know, `rss_key` is its key (40 bytes) and `rss_table` the queue by its 7 lowest bits.
    """

    spec: DeviceSpec
    port_id: int
    queue: int
    mac: bytes
    mtu: int
    pool: int
    rx: int
    tx: int
    alloc: int
    free: int
    wait_fds: list[int]
    unfinished_checksums: bool
    description: str = ""
    rss_key: bytes = b""
    rss_table: bytes = b""
    redirect: Callable[[Mapping[int, int]], None] | None = None  # gives entries of `rss_table` another queue
    few_rx_mbufs: bool = False  # frames are received into a pool of few large ones
    blocks: Any = None  # a writable buffer in a DPDK memzone, if asked for
    _look_after: Callable[[], None] | None = field(default=None, repr=False)
    _on_close: list[Callable[[], None]] = field(default_factory=list, repr=False)

    @property
    def needs_looking_after(self) -> bool:
        return self._look_after is not None

    def look_after(self) -> None:
        """To be called every 50 ms or so, by whoever receives: a worker at a memif that others share learns so that the peer
        has gone, or has come, and maps its memory."""
        if self._look_after is not None:
            self._look_after()

    def close(self) -> None:
        """Stop and close the port, clean the EAL up, remove what opening made. Twice is once."""
        while self._on_close:
            self._on_close.pop()()


GRAMMAR = (
    "veth[:NAME] tap[:NAME] af_packet:IFACE af_xdp:IFACE memif:SOCKET pcap:IN[,OUT] ring pci:BDF vdev:NAME[,...] kernel"
)


def parse_device(text: str) -> DeviceSpec:
    """`KIND[:NAME][,OPTION=VALUE...]` as in `GRAMMAR`. Raises DeviceError with the grammar or the options there are."""
    from mpserve.dataplane import device_grammar

    return device_grammar.parse(text)


def open_device(
    spec: DeviceSpec,
    *,
    queue: int = 0,
    queues: int = 1,
    file_prefix: str = "mpserve",
    hugepages: str = "auto",
    block_bytes: int = 0,
) -> Device:
    """Open the DPDK port of `spec` in this process, started, with one receive and one transmit queue. Kernel sockets are none.

    This is worker `queue` of `queues` workers, each a process that opens the device. `hugepages` is auto, on or off;
    `block_bytes` of DPDK memory are set aside as `Device.blocks`. Raises DeviceError with one line that says what to type.

    A device that workers share (`several` in DRIVERS) was opened before by `shared_port.open_shared_port`, which was told
    the same `file_prefix` and `block_bytes`; this process attaches to it.
    """
    if queues > 1 and spec.driver.several == "shared":
        from mpserve.dataplane import device_attach

        return device_attach.attach(spec, queue, queues, file_prefix, block_bytes)
    from mpserve.dataplane import device_port

    return device_port.open_port(
        spec, queue=queue, queues=queues, file_prefix=file_prefix, hugepages=hugepages, block_bytes=block_bytes
    )
