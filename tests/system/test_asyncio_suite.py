"""A fast part of CPython's own test_asyncio on our loop over a veth pair: `tests/asyncio_suite`, which has the whole.

A test that fails without a line in `explained.json` fails here.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.dpdk]
RUN = Path(__file__).parents[1] / "asyncio_suite" / "run.py"
PART = ["streams", "server", "buffered_proto", "sock_lowlevel", "events:server", "events:connection", "events:accept"]
LEAST_TESTS = 100
SECONDS = 300  # of a busy machine; 25 are enough


def test_cpython_s_tests_of_asyncio(world: int) -> None:
    """In a process of its own, which makes itself a namespace."""
    if importlib.util.find_spec("test.test_asyncio") is None:
        pytest.skip("this Python comes without its tests (Debian: libpython3.11-testsuite)")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("what fails is explained for CPython 3.11")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MPSERVE_")}
    done = subprocess.run(
        [sys.executable, str(RUN), *PART],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    words = done.stderr.splitlines()[-1].split()
    assert int(words[0]) >= LEAST_TESTS and "unexplained:" in words, done.stderr
