"""The port that several workers share, in the process that holds it (`shared_port`): opened as DPDK's primary, with a queue pair, a
pool and blocks for each worker, renewed when a worker has died. Moves no frame.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from mpserve.dataplane import device_arguments, flow_hash
from mpserve.dataplane.device import DeviceSpec
from mpserve.dataplane.device_attach import SPREADING, blocks_name, pool_name
from mpserve.dataplane.device_port import CACHED_MBUFS, DESCRIPTORS, init_eal, one_line, pci_hint, prepare
from mpserve.dataplane.errors import DeviceError

if TYPE_CHECKING:
    from pydpdk import Mempool, Port

LOOK_SECONDS = 0.02  # between two looks at a memif's peer, and at workers that end
WORKERS_END_SECONDS = 30.0


class PortKeeper:
    """The port and the pool and blocks of every worker, in the process that is the primary."""

    def __init__(self, spec: DeviceSpec, queues: int, file_prefix: str, block_bytes: int) -> None:
        self.spec, self.queues, self.file_prefix, self.block_bytes = spec, queues, file_prefix, block_bytes
        self.port: Port
        self._linked = False
        self._events_before = 0

    @property
    def _may_be_hardware(self) -> bool:
        """What keeps mbufs, or reads them by itself."""
        return self.spec.kind in ("pci", "vdev")

    def open(self) -> None:
        prepare(self.spec)
        memory = device_arguments.memory_mb(self.spec, self.block_bytes, self.queues)
        init_eal(
            self.spec,
            lambda lcores: device_arguments.shared_arguments(
                self.spec, lcores=lcores, file_prefix=self.file_prefix, memory=memory
            ),
        )
        from pydpdk import ports

        found = ports()
        if not found:
            raise DeviceError(f"--device {self.spec}: DPDK finds no port there{pci_hint(self.spec)}")
        self.port = found[0]
        try:
            self._set_up()
        except OSError as error:
            raise DeviceError(f"--device {self.spec} does not start: {one_line(error)}") from error

    def _set_up(self) -> None:
        from pydpdk import Mempool, Memzone

        spread = self._configure()
        receive, transmit = self.port.adjust_descriptors(DESCRIPTORS, DESCRIPTORS)
        count = device_arguments.pools(self.spec).mbufs
        for queue in range(self.queues):
            pool = Mempool.create(pool_name(queue), count, cache=CACHED_MBUFS, packed=not self._may_be_hardware)
            if self.block_bytes:
                Memzone.reserve(blocks_name(queue), self.block_bytes)
            self.port.setup_rx_queue(queue, pool, receive)
            self.port.setup_tx_queue(queue, transmit)
        self._events_before = _event_descriptors()
        self.port.start()
        if spread:
            self._spread()

    def _configure(self) -> bool:
        """A pair of queues for each worker; whether the NIC spreads TCP over them by a key of ours."""
        info = self.port.info()
        most = min(info.max_rx_queues, info.max_tx_queues)
        if most < self.queues:
            raise DeviceError(
                f"--device {self.spec} has {most} queues and {self.queues} would be served: name {most} of the cores "
                "with --cores"
            )
        hashes = {"NONFRAG_IPV4_TCP"} & info.rss_hashes
        if not hashes or self.queues == 1:
            self.port.configure(self.queues, self.queues)
            return False
        key = flow_hash.key_of(info.hash_key_size or len(flow_hash.KEY))
        self.port.configure(self.queues, self.queues, rss_hashes=hashes, rss_key=key)
        return info.reta_size > 0

    def _spread(self) -> None:
        """Set the redirection table, and leave key and table for the workers to read."""
        from pydpdk import Memzone

        size = self.port.info().reta_size
        period = min(size, flow_hash.ENTRIES)
        self.port.set_reta(flow_hash.table(self.queues, size, period))
        said = flow_hash.KEY + bytes(flow_hash.table(self.queues, period=period))
        Memzone.reserve(SPREADING, len(said)).buffer()[: len(said)] = said

    def renew(self, queue: int) -> None:
        """The dead worker may have been in the middle of anything: its pool is filled anew where no mbuf of it is elsewhere.
        A NIC lets go of those it holds when its queues stop; where it can't stop them, what the dead one held is lost."""
        from pydpdk import Mempool, runtime

        runtime.remove_dead_secondaries(self.file_prefix)
        try:
            pool = Mempool.lookup(pool_name(queue))
            if self._may_be_hardware:
                self._renew_stopped(queue, pool)
                return
            if self.spec.kind == "ring":
                self._drain(queue)
            pool.refill()
        except OSError as error:
            raise DeviceError(f"--device {self.spec}: worker {queue} can't be replaced: {one_line(error)}") from error

    def _renew_stopped(self, queue: int, pool: Mempool) -> None:
        starts = []
        with contextlib.suppress(OSError):
            for stop, start in (
                (self.port.stop_rx_queue, self.port.start_rx_queue),
                (self.port.stop_tx_queue, self.port.start_tx_queue),
            ):
                stop(queue)
                starts.append(start)
            pool.refill()
        for start in starts:
            start(queue)

    def _drain(self, queue: int) -> None:
        """What was sent into the ring and not received yet."""
        from pydpdk.extension import ffi, lib

        mbufs = ffi.new("uintptr_t[32]")
        while lib.pydpdk_rx_burst(self.port.port_id, queue, int(ffi.cast("uintptr_t", mbufs)), 32):
            pass

    def look(self) -> None:
        """Raises DeviceError if a memif's peer has fewer queues than there are workers: a worker without a ring of its own
        would take the first one's."""
        linked = self.port.link().up
        if linked and not self._linked:
            pairs = (_event_descriptors() - self._events_before) // 2  # net_memif has one for each ring
            if pairs < self.queues:
                raise DeviceError(
                    f"--device {self.spec}: the peer has {pairs} queue{'s' * (pairs > 1)} and {self.queues} workers need "
                    f"one each: give it {self.queues}, or name {pairs} of the cores with --cores"
                )
        self._linked = linked

    def close(self) -> None:
        """Once no worker uses it."""
        from pydpdk import eal, runtime

        deadline = time.monotonic() + WORKERS_END_SECONDS
        while runtime.secondaries(self.file_prefix) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        if self.spec.kind == "memif":
            # To close it is to race net_memif's interrupt thread, which hears the peer's answer: a segmentation fault there.
            device_arguments.remove_own_socket(self.spec)
            eal.abandon()
            return
        with contextlib.suppress(OSError):
            self.port.stop()
            self.port.close()
        eal.cleanup()


def _event_descriptors() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventfd]"
    return count
