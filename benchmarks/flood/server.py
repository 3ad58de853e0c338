"""The server of the flood benchmark, a process of its own: the compiled echo, with `drop` between it and the device."""

import argparse
import os
import signal
import sys
from pathlib import Path

import numpy as np

from benchmarks.flood.drop import DROP, drop_rx, drop_tx, put_between
from benchmarks.memif_servers import UNITS, attach, run_compiled, say_ready
from mpserve.apps.echo_compiled import CompiledEcho
from mpserve.apps.load.small.clients import PORT
from mpserve.apps.load.small.generator import SERVER
from mpserve.dataplane.core import make_core
from mpserve.dataplane.device import Device, open_device, parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import COUNTERS
from mpserve.dataplane.turn import turn
from mpserve.testing.stack import connect_units, listen


def serve(device: Device, counters: Path, drop: Path) -> None:
    """Until SIGTERM."""
    stopped: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    core = make_core(mac=device.mac, ip=SERVER, counters=np.memmap(counters, COUNTERS, "r+", shape=(1,)))
    connect_units(core)
    attach(core, device)
    put_between(core, np.memmap(drop, DROP, "r+", shape=(1,)))
    listen(core, PORT)
    CompiledEcho().install(core)
    say_ready(device)
    run_compiled(turn, core, lambda: not stopped)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("counters", type=Path, help="file of COUNTERS' size to count in")
    parser.add_argument("drop", type=Path, help="file of DROP's size: whether to drop the flood, and what was dropped")
    parser.add_argument("--cpu", type=int, help="pin to this CPU")
    options = parser.parse_args()
    for each in (*UNITS, drop_rx, drop_tx):
        each.address  # noqa: B018  compiled before the link is up
    try:
        device = open_device(parse_device(f"memif:{options.socket}"), file_prefix=f"flooded{os.getpid()}")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        if options.cpu is not None:
            os.sched_setaffinity(0, {options.cpu})  # this thread; DPDK's own go elsewhere
        serve(device, options.counters, options.drop)
    finally:
        device.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
