"""What a request costs stage by stage: `python -m mpserve.cli.bench.paper.stages DEVICE compiled|python` serves echo and counts.

The stack is the one that always runs. Its calls from unit to unit go through addresses in the core's record; here each leads to
a function that reads the TSC before and after. On SIGTERM a line of JSON: cycles by stage, and how many requests there were.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any

import numpy as np

from mpserve.apps.echo import Echo
from mpserve.apps.echo_compiled import CompiledEcho
from mpserve.dataplane.core import Core
from mpserve.dataplane.device import open_device, parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.jit import unit
from mpserve.dataplane.layout import core_at
from mpserve.dataplane.limits import BLOCK_BYTES, DEFAULTS
from mpserve.dataplane.memory import allocate, call0, call2, call4, record_at
from mpserve.framework.handler import Handler
from mpserve.framework.worker import Worker

COUNTED = (
    "rx_cycles",
    "tx_cycles",
    "ingress_cycles",
    "egress_cycles",
    "commands_cycles",
    "timers_cycles",
    "handler_cycles",
)
STAGES = np.dtype(
    [(name, "i8") for name in "read_tsc port rx tx ingress egress commands timers handler".split()]
    + [(name, "i8") for name in COUNTED]
)
stages_at = record_at(STAGES)


@unit("staged_rx")
def staged_rx(port, queue, pkts, count):
    """Polls that found nothing are no part of any request."""
    stages = stages_at(port)
    started = call0(stages.read_tsc)
    taken = call4(stages.rx, stages.port, queue, pkts, count)
    if taken > 0:
        stages.rx_cycles += call0(stages.read_tsc) - started
    return taken


@unit("staged_tx")
def staged_tx(port, queue, pkts, count):
    stages = stages_at(port)
    started = call0(stages.read_tsc)
    taken = call4(stages.tx, stages.port, queue, pkts, count)
    stages.tx_cycles += call0(stages.read_tsc) - started
    return taken


@unit("staged_ingress")
def staged_ingress(core_address, count):
    stages = stages_at(core_at(core_address).port)
    started = call0(stages.read_tsc)
    result = call2(stages.ingress, core_address, count)
    stages.ingress_cycles += call0(stages.read_tsc) - started
    return result


@unit("staged_egress")
def staged_egress(core_address, now):
    stages = stages_at(core_at(core_address).port)
    started = call0(stages.read_tsc)
    result = call2(stages.egress, core_address, now)
    stages.egress_cycles += call0(stages.read_tsc) - started
    return result


@unit("staged_commands")
def staged_commands(core_address, count):
    stages = stages_at(core_at(core_address).port)
    started = call0(stages.read_tsc)
    result = call2(stages.commands, core_address, count)
    stages.commands_cycles += call0(stages.read_tsc) - started
    return result


@unit("staged_timers")
def staged_timers(core_address, now):
    stages = stages_at(core_at(core_address).port)
    started = call0(stages.read_tsc)
    result = call2(stages.timers, core_address, now)
    stages.timers_cycles += call0(stages.read_tsc) - started
    return result


@unit("staged_handler")
def staged_handler(core_address, state):
    stages = stages_at(core_at(core_address).port)
    started = call0(stages.read_tsc)
    result = call2(stages.handler, core_address, state)
    stages.handler_cycles += call0(stages.read_tsc) - started
    return result


UNITS = (staged_rx, staged_tx, staged_ingress, staged_egress, staged_commands, staged_timers, staged_handler)


def watch(core: Core) -> Any:
    """Have a core's calls counted; the record of the counts."""
    stages: Any = allocate(STAGES, 1)[0]
    record = core.record
    stages.read_tsc, stages.port = record.read_tsc, record.port
    for name in ("rx", "tx", "handler"):
        stages[name] = record[name]
    for name in ("ingress", "egress", "commands", "timers"):
        stages[name] = record[f"unit_{name}"]
    record.rx, record.tx, record.port = staged_rx.address, staged_tx.address, _address_of(stages)
    record.unit_ingress, record.unit_egress = staged_ingress.address, staged_egress.address
    record.unit_commands, record.unit_timers = staged_commands.address, staged_timers.address
    if record.handler:
        record.handler = staged_handler.address
    return stages


def _address_of(record: Any) -> int:
    return int(record.__array_interface__["data"][0])


def split(core: Core, stages: Any, before: Any) -> dict[str, float]:
    """Cycles a request by stage, since `before`, and the number of requests."""
    counted = {name: int(stages[name]) - int(before["stages"][name]) for name in COUNTED}
    total = int(core.counters.busy_cycles) - before["busy"]
    requests = int(core.counters.read_events) - before["requests"]
    shown = {
        "receive (driver)": counted["rx_cycles"],
        "ingress": counted["ingress_cycles"],
        "handler": counted["handler_cycles"],
        "commands": counted["commands_cycles"],
        "timers": counted["timers_cycles"],
        "egress": counted["egress_cycles"] - counted["tx_cycles"],
        "transmit (driver)": counted["tx_cycles"],
    }
    shown["events, the turn itself"] = total - sum(shown.values())
    return {name: cycles / max(requests, 1) for name, cycles in shown.items()} | {"requests": requests}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device")
    parser.add_argument("handler", choices=["compiled", "python"])
    options = parser.parse_args()
    for each in UNITS:
        each.address  # noqa: B018  # compiled before the link is up
    try:
        device = open_device(
            parse_device(options.device),
            file_prefix=f"mpserve-stages{os.getpid()}",
            block_bytes=DEFAULTS.blocks * BLOCK_BYTES,
        )
    except SetupError as error:
        print(f"mpserve: {error}", file=sys.stderr)
        return 2
    handler: Handler = CompiledEcho() if options.handler == "compiled" else Echo()
    try:
        worker = Worker(handler, device, ip="10.88.0.2", listen=[("", 8000)], busy_poll=True)
        stages = watch(worker.memory)
        _serve(worker, stages)
        worker.close()
    finally:
        device.close()
    return 0


def _serve(worker: Worker, stages: Any) -> None:
    """Until SIGTERM. SIGUSR1 begins to count anew, behind the warm-up."""
    core = worker.memory
    before: dict[str, Any] = {}

    def begin(*_: object) -> None:
        before.update(
            stages=stages.copy(), busy=int(core.counters.busy_cycles), requests=int(core.counters.read_events)
        )

    begin()
    signal.signal(signal.SIGUSR1, begin)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    print("serving echo", flush=True)
    worker.run()
    print("STAGES " + json.dumps(split(core, stages, before)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
