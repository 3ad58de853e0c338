"""One stream, checked: `python -m benchmarks.bulk.client ADDRESS PORT get|put BYTES` prints the seconds it took."""

import sys
import time

from benchmarks.bulk.kernel_server import CONGESTION
from mpserve.testing.streams import crc_of, get, put


def main(address: str, port: str, way: str, length: str) -> None:
    expected = (int(length), crc_of(int(length)))
    started = time.monotonic()
    server = (address, int(port))
    found = get(server, int(length)) if way == "get" else put(server, int(length), CONGESTION)
    seconds = time.monotonic() - started
    if found != expected:
        sys.exit(f"{found} arrived, not {expected}")
    print(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
