"""`Generator`: N connections in a closed loop, an M-byte request and its M-byte reply at a time. `clients` is its TCP."""

import time
from typing import Any

import numpy as np

from mpserve.apps.load.small.clients import (
    BURST,
    CLIENT,
    FIRST_PORT,
    GENERATOR,
    LATENCY_BUCKETS,
    LATENCY_SHIFT,
    PAYLOAD,
    QUEUE,
    RAW_WINDOW,
    WAITING,
)
from mpserve.apps.load.small.loop import generate
from mpserve.dataplane import tsc
from mpserve.dataplane.core import ipv4
from mpserve.dataplane.device import Device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import COUNTER_NAMES
from mpserve.dataplane.memory import allocate, write_bytes

SERVER, CLIENT_ADDRESS = "10.9.0.2", "10.9.0.1"
COUNTS = (
    "requests failures retransmits resets attempts opened strays busy_cycles cycles polls busy_polls frames".split()
)


class Generator:
    """The clients of one device. `measure` runs them for a time and says what came of it."""

    def __init__(
        self,
        device: Device,
        server_mac: bytes,
        *,
        message: int = 64,
        most: int = 256,
        one_shots: int = 0,
        verify: bool = False,
        raw: bool = False,
        read_tsc: int,
        hz: int = 0,
    ) -> None:
        """The last `one_shots` of the `most` clients open a connection for each request. `read_tsc` is the address of a function
        that reads the TSC, `hz` its frequency, DPDK's if not given.
        """
        self.hz = hz or tsc.hz()
        self.device = device
        self._stride = (PAYLOAD + message + 63) // 64 * 64 + 64  # no power of two, for the caches' sake
        self._arrays = {
            "clients": allocate(CLIENT, most),
            "pkts": allocate(np.int64, BURST),
            "done": allocate(np.int64, BURST),
            "queued_pkts": allocate(np.int64, QUEUE + RAW_WINDOW),
            "spare_pkts": allocate(np.int64, BURST),
            "latency": allocate(np.int64, LATENCY_BUCKETS),
        }
        self._templates = allocate(np.uint8, self._stride * most)
        self._generator = allocate(GENERATOR, 1)
        self.record: Any = self._generator[0]
        for name, array in self._arrays.items():
            self.record[name] = array.ctypes.data
        for name in ("rx", "tx", "alloc", "free", "queue", "pool"):
            self.record[name] = getattr(device, name)
        self.record.port = device.port_id
        self.record.read_tsc = read_tsc
        self.record.mac = int.from_bytes(device.mac, "big")
        self.record.server_mac = int.from_bytes(server_mac, "big")
        self.record.address, self.record.server = ipv4(CLIENT_ADDRESS), ipv4(SERVER)
        self.record.most, self.record.message = most, message
        self.record.one_shots = self._arrays["clients"].ctypes.data + (most - one_shots) * CLIENT.itemsize
        self.record.verify, self.record.raw = int(verify), int(raw)
        self.record.rto, self.record.scan_every = self.hz // 10, self.hz // 100
        self._lay_clients(message)

    def _lay_clients(self, message: int) -> None:
        for index, client in enumerate(self._arrays["clients"]):
            client.port = FIRST_PORT + index - int(self.record.most)
            client.template = self._templates.ctypes.data + self._stride * index
            text = f"{index:07d} ".encode() + bytes(range(32, 127)) * 16
            write_bytes(int(client.template) + PAYLOAD, text[:message])

    def _run(self, seconds: float) -> None:
        generate.call(self._generator.ctypes.data, tsc.read() + int(seconds * self.hz))

    def _start(self, deadline: float) -> None:
        """Until every client has had a reply. SetupError if that takes too long."""
        while self._is_starting():
            if time.monotonic() > deadline:
                raise SetupError(
                    f"{self.record.requests} replies on {self.record.opened} connections, "
                    f"{self.record.client_count} wanted: is a server listening on the other end?"
                )
            self._run(0.05)

    def _is_starting(self) -> bool:
        clients: Any = self._arrays["clients"][: self.record.client_count]
        first_one_shot = (int(self.record.one_shots) - self._arrays["clients"].ctypes.data) // CLIENT.itemsize
        lost = not self.record.raw and (clients.state[:first_one_shot] != WAITING).any()
        return bool(lost or self.record.requests == 0)

    def measure(self, connections: int, seconds: float, warm_up: float, counters: np.ndarray | None) -> dict[str, Any]:
        """Run `connections` clients, no fewer than before; what came of the `seconds` after the warm-up.

        `counters` is the server's COUNTERS record, shared; SetupError if the server doesn't answer within 10 s.
        """
        self.record.client_count = connections
        self._clear()
        self._start(time.monotonic() + 10)
        self._run(warm_up)
        return self._measured(seconds, counters)

    def _measured(self, seconds: float, counters: np.ndarray | None) -> dict[str, Any]:
        """What the clients do in so many seconds, and what the server counts meanwhile."""
        self._clear()
        before = counters.copy() if counters is not None else None
        self._work(seconds)
        result = self._result()
        if counters is not None and before is not None:
            result["server"] = {name: int(counters[name][0] - before[name][0]) for name in COUNTER_NAMES}
        return result

    def _work(self, seconds: float) -> None:
        """What is measured."""
        self._run(seconds)

    def _clear(self) -> None:
        for name in COUNTS:
            self.record[name] = 0
        self._arrays["latency"][:] = 0

    def _result(self) -> dict[str, Any]:
        record = self.record
        result: dict[str, Any] = {
            "connections": int(record.client_count),
            "seconds": int(record.cycles) / self.hz,
        }
        result |= {name: int(record[name]) for name in COUNTS}
        result["requests_per_second"] = int(record.requests) / result["seconds"]
        result["generator_busy"] = int(record.busy_cycles) / int(record.cycles)
        result["tsc_hz"] = self.hz
        result |= {f"p{p}_us": self._percentile(p) for p in (50, 99)}
        return result

    def _percentile(self, percent: int) -> float:
        sums = np.cumsum(self._arrays["latency"])
        bucket = int(np.searchsorted(sums, sums[-1] * percent / 100))
        return (bucket + 0.5) * (1 << LATENCY_SHIFT) / self.hz * 1e6
