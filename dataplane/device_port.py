"""Opens the DPDK port of a device in this process: EAL, pools, port, queues, the descriptors to sleep on.

The worker's side. `device_arguments` says what each driver is told; `links` has made the kernel interface before.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mpserve.dataplane import device_arguments, kernel_link
from mpserve.dataplane.device import Device, DeviceSpec
from mpserve.dataplane.device_checks import check_driver_installed
from mpserve.dataplane.device_wait import find_wait_fds, open_descriptors
from mpserve.dataplane.errors import DeviceError

if TYPE_CHECKING:
    from pydpdk import Mempool, Port

DESCRIPTORS = 1024
CACHED_MBUFS = 256
# net_memif takes a link down in DPDK's interrupt thread as its peer leaves; to close it meanwhile crashed there.
PEER_LEAVES_SECONDS = 0.5


def open_port(spec: DeviceSpec, *, queue: int, file_prefix: str, hugepages: str, block_bytes: int) -> Device:
    """See `mpserve.dataplane.device.open_device`."""
    check_driver_installed(spec.driver.pmd)
    _check_made(spec)
    _prepare(spec)
    before = open_descriptors()
    with contextlib.ExitStack() as undo, _quiet_stderr():
        memory = device_arguments.memory_mb(spec, block_bytes)
        _init_eal(spec, queue, file_prefix, use_hugepages(memory, hugepages), memory, undo)
        device = _start(spec, before, undo)
        if block_bytes:
            device.blocks = _reserve(spec, block_bytes)
        device._on_close.append(_quietly(undo.pop_all()))
    return device


def _check_made(spec: DeviceSpec) -> None:
    """A bare `veth` or `tap` has to be made first: the supervisor's `links.make_link` gives the spec to open."""
    if spec.kind == "veth" or (spec.kind == "tap" and not spec.name):
        raise DeviceError(f"--device {spec}: the interface isn't made yet: open what links.make_link() returns")
    if spec.driver.interface == "given" and not kernel_link.exists(spec.name):
        raise DeviceError(f"--device {spec}: no interface {spec.name!r}; there are {', '.join(kernel_link.names())}")


def _prepare(spec: DeviceSpec) -> None:
    if spec.kind == "memif":
        device_arguments.prepare_memif_socket(spec)
    if spec.kind == "pcap" and not os.access(spec.name, os.R_OK):
        raise DeviceError(f"--device {spec}: can't read {spec.name}: give the name of a capture file")
    # libxdp's dispatcher would need a bpffs and leave pinned programs there.
    os.environ.setdefault("LIBXDP_SKIP_DISPATCHER", "1")


def _reserve(spec: DeviceSpec, size: int) -> Any:
    """DPDK memory for the stack's blocks, as a writable buffer. The EAL's clean-up takes it back."""
    from pydpdk import Memzone

    try:
        return Memzone.reserve("mpserve_blocks", size).buffer()
    except OSError as error:
        raise DeviceError(f"--device {spec}: no DPDK memory for blocks ({_one_line(error)}): lower --blocks") from error


def use_hugepages(needed: int, wanted: str) -> bool:
    """Whether the EAL gets hugepages: `auto` takes them if `needed` MiB are free. DeviceError if `on` finds fewer."""
    if wanted == "off":
        return False
    free = _free_hugepages_mb()
    if free >= needed:
        return True
    if wanted == "on":
        raise DeviceError(
            f"--hugepages on: {needed} MiB are needed and {free} MiB are free: "
            f"type sysctl vm.nr_hugepages={needed // 2 + 1}"
        )
    return False


def _free_hugepages_mb() -> int:
    with open("/proc/meminfo") as file:
        fields = {line.split(":")[0]: int(line.split()[1]) for line in file}
    return fields.get("HugePages_Free", 0) * fields.get("Hugepagesize", 0) // 1024


def _init_eal(
    spec: DeviceSpec, queue: int, file_prefix: str, hugepages: bool, memory_mb: int, undo: contextlib.ExitStack
) -> None:
    try:
        from pydpdk import eal
    except ImportError as error:
        raise DeviceError(f"--device {spec} needs DPDK: {error}") from None
    arguments = device_arguments.eal_arguments(
        spec, queue=queue, lcores=eal.this_thread(), file_prefix=file_prefix, hugepages=hugepages, memory=memory_mb
    )
    try:
        eal.init_with(arguments)
    except OSError as error:
        raise DeviceError(f"--device {spec}: DPDK does not start: {_one_line(error)}") from error
    undo.callback(eal.cleanup)


def _one_line(error: OSError) -> str:
    return " ".join((error.strerror or str(error)).split())


def _start(spec: DeviceSpec, before: set[int], undo: contextlib.ExitStack) -> Device:
    from pydpdk import ports

    found = ports()
    if not found:
        raise DeviceError(f"--device {spec}: DPDK finds no port there{_pci_hint(spec)}")
    probed = open_descriptors()
    try:
        pool = _start_port(spec, found[0], undo)
        return _describe(spec, found[0], pool, find_wait_fds(spec, before, probed))
    except OSError as error:
        raise DeviceError(f"--device {spec} does not start: {_one_line(error)}") from error


def _pci_hint(spec: DeviceSpec) -> str:
    if spec.kind != "pci":
        return ""
    return f": bind it first with dpdk-devbind.py --bind=vfio-pci {spec.name}"


def _start_port(spec: DeviceSpec, port: Port, undo: contextlib.ExitStack) -> Mempool:
    """Pools, one queue each way, started; the pool to send from."""
    from pydpdk import Mempool

    sizes = device_arguments.pools(spec)
    packed = spec.kind not in ("pci", "vdev")  # what no hardware reads
    pool = rx_pool = Mempool.create("mpserve", sizes.mbufs, cache=CACHED_MBUFS, packed=packed)
    if sizes.large:
        room = device_arguments.LARGE_DATA_ROOM
        rx_pool = Mempool.create("mpserve_large", sizes.large, cache=0, data_room=room)
    undo.callback(port.close)
    port.configure()
    receive, transmit = port.adjust_descriptors(DESCRIPTORS, DESCRIPTORS)
    port.setup_rx_queue(0, rx_pool, receive)
    port.setup_tx_queue(0, transmit)
    port.start()
    undo.callback(port.stop)
    if spec.kind == "memif":
        undo.callback(time.sleep, PEER_LEAVES_SECONDS)
    if spec.kind == "af_packet" and kernel_link.is_hardware(spec.name) and "mac" in spec.options:
        port.set_promiscuous(True)  # hardware would filter another address than its own
    return pool


def _describe(spec: DeviceSpec, port: Port, pool: Mempool, wait_fds: list[int]) -> Device:
    from pydpdk import symbols

    return Device(
        spec=spec,
        port_id=port.port_id,
        queue=0,
        mac=device_arguments.own_mac(spec, port.mac),
        mtu=kernel_link.mtu_of(spec.name) if spec.driver.interface else port.mtu,
        pool=pool.address,
        rx=symbols.address("pydpdk_rx_burst"),
        tx=symbols.address("pydpdk_tx_burst"),
        alloc=symbols.address("pydpdk_alloc_bulk"),
        free=symbols.address("pydpdk_free_bulk"),
        wait_fds=wait_fds,
        unfinished_checksums=spec.driver.unfinished_checksums and spec.options.get("offloads") != "off",
        description=str(spec),
        few_rx_mbufs=bool(device_arguments.pools(spec).large),
    )


def _quietly(undo: contextlib.ExitStack) -> Callable[[], None]:
    def close() -> None:
        with _quiet_stderr(), undo:
            pass

    return close


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """libbpf and libxdp write what they try to stderr; when opening fails the error says what matters."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
