"""One thread's part of the rig: clients, and cores that have their turns one after the other."""

import os
import threading
from typing import Any

import numpy as np

from mpserve.apps.load.small.clients import generator_at
from mpserve.apps.load.small.generator import Generator
from mpserve.apps.load.small.loop import poll
from mpserve.cli.bench.cores.nic import FIRST_ADDRESS, Nic
from mpserve.dataplane import tsc
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import COUNTER_NAMES
from mpserve.dataplane.memory import allocate, call0, call2, native64, record_at, unregister
from mpserve.dataplane.turn import turn
from mpserve.framework.machine import Machine

MOST_POLLS = 64  # of the clients, before the cores have their turns
TOGETHER_SECONDS = 30.0  # to wait for the other lane
Sample = dict[str, Any]

LANE = np.dtype([(n, "i8") for n in "generator cores core_count turn read_tsc passes".split()])
lane_at = record_at(LANE)


@unit("rig_lane")
def run_lane(lane_address, until):
    """Turns of the clients and of each core, one after the other, until the TSC reaches `until`."""
    lane = lane_at(lane_address)
    gen = generator_at(lane.generator)
    started = now = call0(lane.read_tsc)
    while now < until:
        worked = _poll_until_dry(gen, now)
        after = call0(lane.read_tsc)
        if worked:
            gen.busy_cycles += after - now
        for i in range(lane.core_count):
            call2(lane.turn, native64(lane.cores + 8 * i), 0)
        lane.passes += 1
        now = call0(lane.read_tsc)
    gen.cycles += now - started
    return lane.passes


@compiled
def _poll_until_dry(gen, now):
    """Whether anything had come."""
    polls = 0
    while polls < MOST_POLLS and poll(gen, now):
        polls += 1
    return polls > 0


class Lane(Generator):
    """The clients of one thread, and the cores that it turns."""

    def __init__(
        self, number: int, nic: Nic, machines: list[Machine], together: threading.Barrier, **more: Any
    ) -> None:
        super().__init__(nic, machines[0].device.mac, **more)  # type: ignore[arg-type]
        self._nic, self._machines, self._together = nic, machines, together
        self.record.address = FIRST_ADDRESS + number
        self._cores = allocate(np.int64, len(machines))
        self._cores[:] = [machine.core.address for machine in machines]
        self._lane = allocate(LANE, 1)
        lane: Any = self._lane[0]
        lane.generator, lane.turn, lane.read_tsc = self._generator.ctypes.data, turn.address, self.record.read_tsc
        lane.cores, lane.core_count = self._cores.ctypes.data, len(machines)

    def _run(self, seconds: float) -> None:
        run_lane.call(self._lane.ctypes.data, tsc.read() + int(seconds * self.hz))

    def _work(self, seconds: float) -> None:
        self._together.wait(TOGETHER_SECONDS)
        before = self._counted()
        super()._work(seconds)
        self._spent = {name: count - before[name] for name, count in self._counted().items()}

    def _counted(self) -> dict[str, int]:
        """Of all cores of the lane together."""
        return {name: sum(int(m.counters[name]) for m in self._machines) for name in COUNTER_NAMES}

    def _measured(self, seconds: float, counters: np.ndarray | None) -> Sample:
        return super()._measured(seconds, counters) | {"server": self._spent}

    def measure_pinned(self, cpu: int, seconds: float, warm_up: float) -> Sample:
        """In a thread of its own, on that CPU."""
        os.sched_setaffinity(0, {cpu})
        return self.measure(int(self.record.most), seconds, warm_up, None)

    def close(self) -> None:
        self._nic.close()
        arrays = (*self._arrays.values(), self._templates, self._generator, self._cores, self._lane)
        for array in arrays:
            unregister(array.ctypes.data)
