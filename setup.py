"""Builds the pydpdk extension where DPDK's headers are installed; everything else is in pyproject.toml.

Without DPDK the package still installs: handlers are written and tested anywhere, and opening a device says what is missing.
"""

import shutil
import subprocess
import sys

from setuptools import setup


def dpdk_is_installed() -> bool:
    if shutil.which("pkg-config") is None:
        return False
    return subprocess.run(["pkg-config", "--exists", "libdpdk"], check=False).returncode == 0


if dpdk_is_installed():
    setup(cffi_modules=["dataplane/pydpdk/build.py:ffibuilder"])
else:
    print("mpserve: libdpdk was not found by pkg-config; installing without the pydpdk extension", file=sys.stderr)
    setup()
