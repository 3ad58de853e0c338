"""A Core laid out for a device and wired to it: addresses of its functions, the clock, blocks, the counters' segment."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import Any

import cffi
import numpy as np

from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.faulty_wire import FaultyWire
from mpserve.dataplane.impair_grammar import Impairment
from mpserve.dataplane.layout import BLOCK_BYTES, COUNTERS, Core, make_core
from mpserve.dataplane.limits import Limits

_FFI = cffi.FFI()


class Machine:
    """One core's memory and the device that it serves. `attach`, where a device has it, wires it in its own way (tests).

    `impairment` puts a faulty wire between the two.
    """

    def __init__(
        self,
        device: Any,
        limits: Limits,
        *,
        ip: str,
        prefix_length: int,
        gateway: str | None,
        routes: Sequence[tuple[str, int, str]] = (),
        counters: str | None = None,
        impairment: Impairment | None = None,
    ) -> None:
        self.device = device
        self._counters_map: mmap.mmap | None = None
        self.core: Core = make_core(
            limits,
            mac=device.mac,
            ip=ip,
            prefix_length=prefix_length,
            gateway=gateway,
            routes=routes,
            mtu=device.mtu,
            block_data=_device_blocks(device, limits),
            counters=self._shared_counters(counters),
        )
        if hasattr(device, "attach"):
            device.attach(self.core)
        else:
            _attach(self.core, device)
        self.faulty_wire: FaultyWire | None = None
        if impairment is not None:
            few = getattr(device, "few_rx_mbufs", False)
            self.faulty_wire = FaultyWire(self.core, impairment, few_rx_mbufs=few)

    def _shared_counters(self, path: str | None) -> np.ndarray | None:
        """The segment that the supervisor made, as one record of COUNTERS."""
        if path is None:
            return None
        try:
            fd = os.open(path, os.O_RDWR)
        except OSError as error:
            raise SetupError(f"the counters' segment {path} can't be opened: {error.strerror}") from error
        try:
            if os.fstat(fd).st_size < COUNTERS.itemsize:
                os.ftruncate(fd, COUNTERS.itemsize)
            self._counters_map = mmap.mmap(fd, COUNTERS.itemsize)
        finally:
            os.close(fd)
        return np.frombuffer(self._counters_map, COUNTERS, 1)

    def check(self) -> None:
        """Raise IndexError if compiled code built with bounds checks met an index outside a table."""
        self.core.check()
        if self.faulty_wire is not None:
            self.faulty_wire.check()

    def close(self) -> None:
        if self.faulty_wire is not None:
            self.faulty_wire.close()
        self.core.close()


def _device_blocks(device: Any, limits: Limits) -> np.ndarray | None:
    """Send blocks from the device's own memory (a DPDK memzone), where it has any to give."""
    memory = getattr(device, "blocks", None)
    return None if memory is None else np.frombuffer(memory, np.uint8, limits.blocks * BLOCK_BYTES)


def _attach(core: Core, device: Any) -> None:
    """A DPDK port: its burst functions by address, and the TSC for a clock that starts at one second."""
    import pydpdk

    record = core.record
    record.rx, record.tx, record.alloc, record.free = device.rx, device.tx, device.alloc, device.free
    record.port, record.queue, record.pool = device.port_id, device.queue, device.pool
    record.unfinished_checksums = int(device.unfinished_checksums)
    hz = pydpdk.tsc_hz()
    record.read_tsc = pydpdk.symbols.address("pydpdk_rdtsc")
    record.tsc_scale = int(1e6 * 2**32 / hz)
    record.tsc_start = _FFI.cast("int64_t(*)(void)", int(record.read_tsc))() - hz
