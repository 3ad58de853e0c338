"""`--record`: the frames that a worker sees and sends, as a pcap file (microseconds, Ethernet)."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np

from mpserve.dataplane.core import Core
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.memory import allocate, unregister
from mpserve.dataplane.recorder import HEADER, WRAP

RING_BYTES = 8 << 20
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 17, 1)


class Recorder:
    """Drains a core's ring of recorded frames into a file."""

    def __init__(self, core: Core, path: str) -> None:
        try:
            self._file = Path(path).open("wb")
        except OSError as error:
            raise SetupError(f"--record {path}: {error.strerror}; name a file that can be written") from error
        self._file.write(_FILE_HEADER)
        self._core = core
        self._ring = allocate(np.uint8, RING_BYTES)
        self._epoch_us = int(time.time() * 1e6) - int(core.record.now)
        core.record.record_bytes = RING_BYTES
        core.record.record = self._ring.ctypes.data

    def drain(self) -> None:
        """Write what has been recorded since the last call."""
        record = self._core.record
        head, tail = int(record.record_head), int(record.record_tail)
        ring = memoryview(self._ring)  # type: ignore[arg-type]
        while tail < head:
            at = tail % RING_BYTES
            now, length = struct.unpack_from("<qq", ring, at)
            if length == WRAP:
                tail += RING_BYTES - at
                continue
            seconds, microseconds = divmod(self._epoch_us + now, 1_000_000)
            self._file.write(struct.pack("<IIII", seconds, microseconds, length, length))
            self._file.write(ring[at + HEADER : at + HEADER + length])
            tail += HEADER + ((length + 7) & -8)
        record.record_tail = tail

    def close(self) -> None:
        self.drain()
        self._core.record.record = 0
        self._file.close()
        unregister(self._ring.ctypes.data)
