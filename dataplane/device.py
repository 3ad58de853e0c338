"""Devices: where frames come from. The grammar of `--device`, and one table of what each driver can and cannot do.

Nothing here touches DPDK or the kernel: `device_port` opens the port, `links` makes kernel interfaces.
"""

from __future__ import annotations

from collections.abc import Callable
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
    secondary: bool = False  # a second process can attach to the port and move frames
    sleeps: bool = False  # there is a file descriptor to wait on while idle
    max_queues: int = 1
    spreads: bool = False  # by default it has a worker on each core: flows keep to their queue, or are steered there
    about: str = ""


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
        max_queues=16,
        about="a veth pair made and removed by mpserve: af_xdp on our end where BPF programs load, else af_packet",
    ),
    "tap": Driver(
        "net_tap",
        "[NAME]",
        _options("mtu mac"),
        interface="made",
        secondary=True,
        sleeps=True,
        max_queues=16,
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
        about="a packet socket on an interface that exists; the kernel sees the frames too",
    ),
    "af_xdp": Driver(
        "net_af_xdp",
        "IFACE",
        _options("offloads force_copy busy_budget"),
        interface="given",
        unfinished_checksums=True,
        sleeps=True,
        max_queues=64,
        about="an AF_XDP socket on an interface that exists; the kernel no longer sees the frames",
    ),
    "memif": Driver(
        "net_memif",
        "SOCKET",
        _options("role id rsize bsize secret"),
        needs_root=False,
        about="shared memory between two processes",
    ),
    "pcap": Driver(
        "net_pcap",
        "IN[,OUT]",
        _options("mac"),
        needs_root=False,
        about="frames from a capture file, replies into another",
    ),
    "ring": Driver("net_ring", "", needs_root=False, about="what is sent is received: for tests"),
    "pci": Driver("", "BDF", _options("devargs"), secondary=True, about="a NIC bound to vfio-pci or uio"),
    "vdev": Driver("", "NAME[,KEY=VALUE...]", about="any DPDK virtual device, its arguments as DPDK takes them"),
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
    """An open DPDK port and one of its queues, for the process that opened it.

    `pool`, `rx`, `tx`, `alloc` and `free` are addresses: of the rte_mempool that frames to send come from, and of
    pydpdk's burst functions. `wait_fds` become readable when a frame arrives.
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
    few_rx_mbufs: bool = False  # frames are received into a pool of few large ones
    blocks: Any = None  # a writable buffer in a DPDK memzone, if asked for
    _on_close: list[Callable[[], None]] = field(default_factory=list, repr=False)

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
    spec: DeviceSpec, *, queue: int = 0, file_prefix: str = "mpserve", hugepages: str = "auto", block_bytes: int = 0
) -> Device:
    """Open the DPDK port of `spec` in this process, started, with one receive and one transmit queue. Kernel sockets are none.

    `queue` is the queue of the kernel interface or NIC that this worker owns; `hugepages` is auto, on or off;
    `block_bytes` of DPDK memory are set aside as `Device.blocks`. Raises DeviceError with one line that says what to type.
    """
    from mpserve.dataplane import device_port

    return device_port.open_port(
        spec, queue=queue, file_prefix=file_prefix, hugepages=hugepages, block_bytes=block_bytes
    )
