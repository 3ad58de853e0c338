"""A load generator over memif: N connections in a closed loop, an M-byte request and its M-byte reply at a time.

`python -m benchmarks.generator --help`; it prints a line of JSON for each measurement. `mpserve.apps.load.small` is its TCP.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mpserve.apps.load.small.generator import Generator
from mpserve.apps.load.small.loop import generate
from mpserve.dataplane.device import open_device, parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.layout import COUNTERS


def _measurements(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from pydpdk import symbols

    counters = np.memmap(options.counters, COUNTERS, "r", shape=(1,)) if options.counters else None
    generate.address  # noqa: B018  compiled before the link is up
    counts = [int(word) for word in options.connections.split(",")]
    device = open_device(parse_device(f"memif:{options.socket},role=client"), file_prefix=f"generator{os.getpid()}")
    try:
        if options.cpu is not None:
            os.sched_setaffinity(0, {options.cpu})  # this thread; DPDK's own go elsewhere
        generator = Generator(
            device,
            bytes.fromhex(options.server_mac.replace(":", "")),
            message=options.bytes,
            most=max(counts),
            one_shots=max(counts) if options.one_shot else 0,
            verify=options.verify,
            raw=options.raw,
            read_tsc=symbols.address("pydpdk_rdtsc"),
        )
        for connections in counts:
            yield generator.measure(connections, options.seconds, options.warm_up, counters)
        if options.hold:
            sys.stdin.read()
    finally:
        device.close()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("socket", type=Path, help="memif socket of the server")
    parser.add_argument("--server-mac", required=True)
    parser.add_argument("--connections", default="1,16,64,256", help="one measurement for each number")
    parser.add_argument("--bytes", type=int, default=64, help="of a request and of its reply, at most 1460")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warm-up", type=float, default=0.3)
    parser.add_argument("--one-shot", action="store_true", help="a connection for each request")
    parser.add_argument("--verify", action="store_true", help="check checksums and content of replies too")
    parser.add_argument("--raw", action="store_true", help="frames in place of TCP: the wire's limit")
    parser.add_argument("--counters", type=Path, help="file of the server's counters")
    parser.add_argument(
        "--hold", action="store_true", help="keep the link until stdin ends: see `memif_pair.hold_link`"
    )
    parser.add_argument("--cpu", type=int, help="pin to this CPU")
    return parser.parse_args()


def main() -> int:
    options = _parse()
    try:
        for result in _measurements(options):
            print(json.dumps(result), flush=True)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
