"""Opens the DPDK port of a device in this process: EAL, pools, port, queues, the descriptors to sleep on.

The worker's side. `device_arguments` says what each driver is told; `links` has made the kernel interface before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mpserve.dataplane import device_arguments, flow_hash, kernel_link, packet_filter
from mpserve.dataplane.device import Device, DeviceSpec
from mpserve.dataplane.device_checks import check_driver_installed, check_queues, free_hugepages_mb
from mpserve.dataplane.device_wait import find_wait_fds, open_descriptors
from mpserve.dataplane.errors import DeviceError

if TYPE_CHECKING:
    from pydpdk import Mempool, Port

DESCRIPTORS = 1024
CACHED_MBUFS = 256


def open_port(
    spec: DeviceSpec, *, queue: int, queues: int, file_prefix: str, hugepages: str, block_bytes: int
) -> Device:
    """See `mpserve.dataplane.device.open_device`."""
    check_driver_installed(spec.driver.pmd)
    check_queues(spec, queues)
    _check_made(spec)
    prepare(spec)
    before = open_descriptors()
    with contextlib.ExitStack() as undo, quiet_stderr():
        memory = device_arguments.memory_mb(spec, block_bytes)
        huge = use_hugepages(memory, hugepages)
        init_eal(
            spec,
            lambda lcores: device_arguments.eal_arguments(
                spec, queue=queue, lcores=lcores, file_prefix=file_prefix, hugepages=huge, memory=memory
            ),
        )
        # To close a memif is to race net_memif's interrupt thread, which hears of its peer and crashed: it ends with the process.
        orderly = spec.kind != "memif" and (queues == 1 or not spec.driver.closing_hurts)
        ending = _Ending(undo, orderly=orderly)
        if spec.kind == "memif":
            undo.callback(device_arguments.remove_own_socket, spec)
        device = _start(spec, before, ending)
        if queues > 1 and spec.kind == "af_packet":
            _take_share(device, queue, queues)
        if block_bytes:
            device.blocks = _reserve(spec, block_bytes)
        device._on_close.append(quietly(undo.pop_all()))
    return device


class _Ending:
    """How what was opened is closed. Where closing in order would take away what other workers use, nothing is closed but
    by the end of the process."""

    def __init__(self, undo: contextlib.ExitStack, orderly: bool) -> None:
        from pydpdk import eal

        self._undo, self._orderly = undo, orderly
        undo.callback(eal.cleanup if orderly else eal.abandon)

    def callback(self, close: Callable[[], None]) -> None:
        if self._orderly:
            self._undo.callback(close)


def _take_share(device: Device, queue: int, queues: int) -> None:
    """Of a packet socket that got everything so far: from now on it gets the frames of one queue."""
    try:
        for descriptor in device.wait_fds:
            packet_filter.attach(descriptor, queue, queues)
    except OSError as error:
        raise DeviceError(f"--device {device.spec}: no filter for several workers: {error.strerror}") from error
    device.rss_key, device.rss_table = flow_hash.KEY, bytes(flow_hash.table(queues))
    discard_received(device)


def discard_received(device: Device) -> None:
    """Free what has arrived."""
    from pydpdk.extension import ffi, lib

    mbufs = ffi.new("uintptr_t[32]")
    address = int(ffi.cast("uintptr_t", mbufs))
    while count := lib.pydpdk_rx_burst(device.port_id, device.queue, address, 32):
        lib.pydpdk_free_bulk(address, count)


def _check_made(spec: DeviceSpec) -> None:
    """A bare `veth` or `tap` has to be made first: the supervisor's `links.make_link` gives the spec to open."""
    if spec.kind == "veth" or (spec.kind == "tap" and not spec.name):
        raise DeviceError(f"--device {spec}: the interface isn't made yet: open what links.make_link() returns")
    if spec.driver.interface == "given" and not kernel_link.exists(spec.name):
        raise DeviceError(f"--device {spec}: no interface {spec.name!r}; there are {', '.join(kernel_link.names())}")


def prepare(spec: DeviceSpec) -> None:
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
        raise DeviceError(f"--device {spec}: no DPDK memory for blocks ({one_line(error)}): lower --blocks") from error


def use_hugepages(needed: int, wanted: str) -> bool:
    """Whether the EAL gets hugepages: `auto` takes them if `needed` MiB are free. DeviceError if `on` finds fewer."""
    if wanted == "off":
        return False
    free, _ = free_hugepages_mb()
    if free >= needed:
        return True
    if wanted == "on":
        raise DeviceError(
            f"--hugepages on: {needed} MiB are needed and {free} MiB are free: "
            f"type sysctl vm.nr_hugepages={needed // 2 + 1}"
        )
    return False


def init_eal(spec: DeviceSpec, arguments: Callable[[str], list[str]], lcore: int = 0) -> None:
    """`arguments` makes the EAL's from DPDK's map of lcores to CPUs: one, numbered `lcore`, on this thread's."""
    try:
        from pydpdk import eal
    except ImportError as error:
        raise DeviceError(f"--device {spec} needs DPDK: {error}") from None
    try:
        eal.init_with(arguments(eal.this_thread(lcore)))
    except OSError as error:
        raise DeviceError(f"--device {spec}: DPDK does not start: {one_line(error)}") from error


def one_line(error: OSError) -> str:
    return " ".join((error.strerror or str(error)).split())


def _start(spec: DeviceSpec, before: set[int], ending: _Ending) -> Device:
    from pydpdk import ports

    found = ports()
    if not found:
        raise DeviceError(f"--device {spec}: DPDK finds no port there{pci_hint(spec)}")
    probed = open_descriptors()
    try:
        with _one_at_a_time(spec):
            pool = _start_port(spec, found[0], ending)
        return describe(spec, found[0], pool, find_wait_fds(spec, before, probed))
    except OSError as error:
        raise DeviceError(f"--device {spec} does not start: {one_line(error)}") from error


def pci_hint(spec: DeviceSpec) -> str:
    if spec.kind != "pci":
        return ""
    return f": bind it first with dpdk-devbind.py --bind=vfio-pci {spec.name}"


@contextlib.contextmanager
def _one_at_a_time(spec: DeviceSpec) -> Iterator[None]:
    """libxdp looks whether its program is on the interface and loads it if not; of two workers that do so at once, one fails.
    The lock is on the network namespace, which leaves no file."""
    if spec.kind != "af_xdp":
        yield
        return
    with open("/proc/thread-self/ns/net") as namespace:
        fcntl.flock(namespace, fcntl.LOCK_EX)
        yield


def _start_port(spec: DeviceSpec, port: Port, ending: _Ending) -> Mempool:
    """Pools, one queue each way, started; the pool to send from."""
    from pydpdk import Mempool

    sizes = device_arguments.pools(spec)
    packed = spec.kind not in ("pci", "vdev")  # what no hardware reads
    pool = rx_pool = Mempool.create("mpserve", sizes.mbufs, cache=CACHED_MBUFS, packed=packed)
    if sizes.large:
        room = device_arguments.LARGE_DATA_ROOM
        rx_pool = Mempool.create("mpserve_large", sizes.large, cache=0, data_room=room)
    ending.callback(port.close)
    port.configure()
    receive, transmit = port.adjust_descriptors(DESCRIPTORS, DESCRIPTORS)
    port.setup_rx_queue(0, rx_pool, receive)
    port.setup_tx_queue(0, transmit)
    port.start()
    ending.callback(port.stop)
    if spec.kind == "af_packet" and kernel_link.is_hardware(spec.name) and "mac" in spec.options:
        port.set_promiscuous(True)  # hardware would filter another address than its own
    return pool


def describe(spec: DeviceSpec, port: Port, pool: Mempool, wait_fds: list[int]) -> Device:
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


def quietly(undo: contextlib.ExitStack) -> Callable[[], None]:
    def close() -> None:
        with quiet_stderr(), undo:
            pass

    return close


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
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
