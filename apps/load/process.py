"""The generator's own process: `python -m mpserve.apps.load.process DEVICE --ip ADDRESS/PREFIX --server ADDRESS --port PORT`.

It opens the device, says {"event": "ready"}, and carries out one order a line of its input, each answered by a line of JSON:

    {"plan": {...}, "seconds": 2.0, "warm_up": 0.3}   ->   {"event": "measured", ...}, see `Generator.result`
                                                           {"event": "failed", "message": ...}

It ends with its input; after each order it leaves no connection behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from typing import Any

from mpserve.apps.load.generator import Generator
from mpserve.apps.load.loop import run_load, turn_load
from mpserve.apps.load.plan import Plan
from mpserve.apps.load.raw import RawGenerator, bounce_frames
from mpserve.dataplane.device import Device, open_device, parse_device
from mpserve.dataplane.errors import SetupError


def main() -> int:
    options = _parse()
    for unit in (run_load, turn_load, bounce_frames):
        unit.address  # noqa: B018  # compiled before the link is up
    try:
        device = open_device(parse_device(options.device), file_prefix=f"mpserve-load{os.getpid()}")
    except SetupError as error:
        _say("failed", message=str(error))
        return 2
    try:
        if options.cpu is not None:
            os.sched_setaffinity(0, {options.cpu})  # this thread; DPDK's own go elsewhere
        _say("ready")
        with contextlib.suppress(KeyboardInterrupt):
            _serve(device, options)
    finally:
        device.close()
    return 0


def _serve(device: Device, options: argparse.Namespace) -> None:
    ip, _, prefix = options.ip.partition("/")
    for line in sys.stdin:
        order = json.loads(line)
        if order["plan"]["protocol"] == "raw":
            _measure_raw(device, order)
            continue
        try:
            generator = Generator(
                device,
                Plan(**order["plan"]),
                ip=ip,
                server=options.server,
                port=options.port,
                prefix_length=int(prefix or 24),
            )
        except SetupError as error:
            _say("failed", message=str(error))
            continue
        try:
            generator.open()
            _say("open")
            _say("measured", **generator.measure(order["seconds"], order.get("warm_up", 0.3)))
        except SetupError as error:
            _say("failed", message=str(error))
        finally:
            generator.finish()
            generator.close()


def _measure_raw(device: Device, order: dict[str, Any]) -> None:
    generator = RawGenerator(device, order["plan"]["message"])
    try:
        _say("measured", **generator.measure(order["seconds"], order.get("warm_up", 0.3)))
    except SetupError as error:
        _say("failed", message=str(error))
    finally:
        generator.close()


def _say(event: str, **fields: Any) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("device")
    parser.add_argument("--ip", required=True, help="the generator's own address, with its prefix length")
    parser.add_argument("--server", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cpu", type=int, help="pin to this core")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
