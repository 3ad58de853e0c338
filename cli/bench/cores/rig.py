"""Cores with the compiled echo handler and clients in one process: `Rig(plan, ...).measure(seconds)`.

In turn, all share one thread, pinned to a CPU: a machine of two CPUs has none to spare for clients in a process of their own,
which would take the servers' from them. At once, each core has a thread on a CPU of its own, and its clients with it.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mpserve.apps.echo_compiled import CompiledEcho
from mpserve.apps.load.small.clients import PORT
from mpserve.apps.load.small.generator import SERVER
from mpserve.cli.bench.cores.clock import measure_hz, read_tsc
from mpserve.cli.bench.cores.lane import Lane, Sample
from mpserve.cli.bench.cores.nic import MBUFS, CorePort, Nic, Rings
from mpserve.dataplane import tsc
from mpserve.dataplane.layout import NEVER
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.memory import allocate, unregister
from mpserve.dataplane.switchboard import Seat, Switchboard, size
from mpserve.framework.machine import Machine
from mpserve.testing.wire import Wire

POOLS: dict[str, Any] = {
    "max_connections": 1024,
    "syn_backlog": 1024,
    "time_wait": 1024,
    "neighbors": 64,
    "blocks": 4096,
}
SHOWN = "busy_cycles rx_frames steered_out steered_in steered_new connections_accepted".split()


@dataclass(frozen=True)
class Plan:
    """How many cores there are, how they are joined, and who gives them work."""

    label: str
    cores: int = 1
    joined: bool = False  # to one switchboard
    receiving: int = 0  # the first so many cores get the clients' frames; 0: all
    at_once: bool = False  # a thread for each core; else in turn, in one
    mixed: bool = False  # at once: a core may have connections of the other's clients
    beside: str = ""  # the plan that it is compared with


class Rig:
    """`connections` clients in a closed loop, in equal parts for all cores that receive; `limits` are settings of the cores'.

    With `draws`, SYNs arrive at cores by chance, whatever queue the rest of their flow comes to.
    """

    def __init__(
        self,
        plan: Plan,
        connections: int,
        *,
        one_shot: bool = False,
        draws: bool = False,
        verify: bool = False,
        **limits: Any,
    ) -> None:
        self.plan, self._limits, self.hz = plan, Limits(**POOLS | limits), measure_hz()
        self._start = tsc.read() - self.hz  # the cores' clocks begin at one second
        self._board, self._handlers = self._make_board(), [CompiledEcho() for _ in range(plan.cores)]
        self._wires = [Wire(mbufs=MBUFS) for _ in range(plan.cores)]
        self._machines = [self._make_core(number) for number in range(plan.cores)]
        self._rings, self._ports = Rings(plan.cores if plan.at_once else 1), list[CorePort]()
        together, each = threading.Barrier(self._rings.lanes), connections // self._rings.lanes
        clients = {"most": each, "one_shots": each if one_shot else 0, "verify": verify}
        clients |= {"read_tsc": read_tsc.address, "hz": self.hz}
        self._lanes = [
            Lane(number, self._make_nic(number, draws), self._of_lane(self._machines, number), together, **clients)
            for number in range(self._rings.lanes)
        ]

    def _of_lane(self, cores: list[Any], number: int) -> list[Any]:
        return [cores[number]] if self.plan.at_once else cores

    def _make_nic(self, number: int, draws: bool) -> Nic:
        """Of a lane, joined to its cores."""
        wires = self._of_lane(self._wires, number)
        nic = Nic(number, wires[: self.plan.receiving or None], self._rings, draws)
        for wire in wires:
            wire.connect(nic.wire)
        if self.plan.mixed:
            self._ports.append(CorePort(self._machines[number].core, self._wires[number], nic, number, self._rings))
        return nic

    def _make_board(self) -> Switchboard | None:
        if not self.plan.joined:
            return None
        self._memory = allocate("u1", size(self.plan.cores, self._limits))
        return Switchboard(self._memory, self.plan.cores, self._limits).make()

    def _make_core(self, number: int) -> Machine:
        seat = None if self._board is None else Seat(self._board, number)
        machine = Machine(self._wires[number], self._limits, ip=SERVER, prefix_length=24, gateway=None, seat=seat)
        machine.channel.listen(PORT)
        machine.install(self._handlers[number])
        record = machine.core.record
        record.read_tsc, record.tsc_scale, record.tsc_start = read_tsc.address, int(1e6 * 2**32 / self.hz), self._start
        record.idle_spin_us, record.return_at = NEVER, 0  # a turn comes back after one pass
        machine.begin_serving()
        return machine

    def measure(self, seconds: float, warm_up: float = 0.05) -> Sample:
        """What all lanes together did in so many seconds; the counts named in SHOWN are of all cores, `cycles` a request's."""
        cpus = sorted(os.sched_getaffinity(0), reverse=True)
        with ThreadPoolExecutor(len(self._lanes)) as threads:
            waiting = [
                threads.submit(lane.measure_pinned, cpu, seconds, warm_up)
                for lane, cpu in zip(self._lanes, cpus, strict=False)
            ]
            results = [each.result() for each in waiting]
        summed = {name: sum(result[name] for result in results) for name in ("requests", "failures", "resets")}
        summed |= {name: sum(result["server"][name] for result in results) for name in SHOWN}
        share = [result["generator_busy"] for result in results]
        summed |= {"seconds": results[0]["seconds"], "tsc_hz": self.hz, "clients_busy": sum(share) / len(share)}
        return summed | {"cycles": summed["busy_cycles"] / max(summed["requests"], 1)}

    def close(self) -> None:
        """Give the memory back; the rig can't be used any more."""
        for lane in self._lanes:
            lane.close()
        for machine, handler in zip(self._machines, self._handlers, strict=True):
            machine.uninstall(handler)
            machine.close()
        for wire in self._wires:
            wire.close()
        for port in self._ports:
            port.close()
        self._rings.close()
        if self._board is not None:
            self._board.close()
            unregister(self._memory.ctypes.data)
