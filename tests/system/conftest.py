"""Fixtures of tests that need the kernel: a network namespace of the test's own, in which nothing collides or stays."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if str(Path(__file__).parent) not in sys.path:
    sys.path.append(str(Path(__file__).parent))  # for `import server`, beside the tests

from namespaces import borrowed_pair, inside, new_namespace, switch_namespace  # noqa: E402, F401


@pytest.fixture
def namespace() -> Iterator[int]:
    """The test runs in a network namespace of its own. Skipped without root."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    try:
        with new_namespace() as descriptor:
            yield descriptor
    except PermissionError:
        pytest.skip("needs CAP_SYS_ADMIN: makes a network namespace")


@pytest.fixture(scope="module")
def world() -> Iterator[int]:
    """One network namespace for all tests of a file; skipped where there can be none, or no DPDK."""
    pytest.importorskip("pydpdk", reason="needs DPDK and the pydpdk extension", exc_type=ImportError)
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a network namespace")
    try:
        with new_namespace() as descriptor:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield descriptor
    except PermissionError:
        pytest.skip("needs CAP_SYS_ADMIN: makes a network namespace")
