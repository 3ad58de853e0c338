"""Fixtures of tests that need the kernel: a network namespace of the test's own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if str(Path(__file__).parent) not in sys.path:
    sys.path.append(str(Path(__file__).parent))  # for `import server` and `import namespaces`, beside the tests

from namespaces import new_namespace  # noqa: E402
from server import eventually  # noqa: E402

RESERVED = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
SURPLUS = RESERVED.with_name("surplus_hugepages")  # of them, in use since they were reserved for somebody
PAGES = 192  # of 2 MiB: twice of what any test needs, for other servers take them too while they are there


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


@pytest.fixture
def hugetlbfs(tmp_path: Path) -> Iterator[Path]:
    """Hugepages for the test, and a mount of its own; given back afterwards."""
    if not RESERVED.exists():
        pytest.skip("this kernel has no hugepages of 2 MiB")
    before = int(RESERVED.read_text()) - int(SURPLUS.read_text())
    folder = tmp_path / "huge"
    folder.mkdir()
    RESERVED.write_text(str(before + PAGES))
    try:
        mounted = subprocess.run(["mount", "-t", "hugetlbfs", "mpst", folder], capture_output=True, text=True)
        if mounted.returncode != 0:
            pytest.skip(f"no hugetlbfs can be mounted: {mounted.stderr.strip()}")
        yield folder
        left = os.listdir(folder)
        # Busy while a process has pages of it, or while DPDK starts anywhere and looks for stale ones.
        eventually(lambda: subprocess.run(["umount", folder], capture_output=True).returncode == 0, "it stays mounted")
        assert left == []
    finally:
        RESERVED.write_text(str(before))
