"""Builds pydpdk._dpdk: DPDK's own functions as cdef.h declares them, and the shim around its static inlines.

Compiler flags are what pkg-config says for libdpdk: DPDK's headers need the instruction set that it was built for
(-march=corei7 on Debian), and a CPU that runs DPDK has that. Drivers are not linked: the EAL loads them from its
plugin folder.
"""

import shlex
import subprocess
from pathlib import Path

import cffi

FOLDER = Path(__file__).resolve().parent
LIBRARIES = {"rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal", "rte_log"}  # rte_log since DPDK 23.11


def pkg_config(option: str) -> list[str]:
    output = subprocess.check_output(["pkg-config", option, "libdpdk"], text=True)
    return shlex.split(output)


def relative(name: str) -> str:
    """setuptools takes sources only relative to the folder of setup.py, which is where the build runs."""
    return str((FOLDER / name).relative_to(Path.cwd()))


def make_ffi() -> cffi.FFI:
    ffi = cffi.FFI()
    ffi.cdef((FOLDER / "cdef.h").read_text())
    ffi.cdef((FOLDER / "shim.h").read_text())
    ffi.set_source(
        "pydpdk._dpdk",
        '#include "dpdk.h"',
        sources=[relative("shim.c"), relative("log.c")],
        include_dirs=[str(FOLDER)],
        depends=[relative(name) for name in ("cdef.h", "shim.h", "dpdk.h")],
        extra_compile_args=[*pkg_config("--cflags"), "-O3", "-Wall", "-Wno-address-of-packed-member"],
        library_dirs=[flag[2:] for flag in pkg_config("--libs-only-L")],
        libraries=[flag[2:] for flag in pkg_config("--libs-only-l") if flag[2:] in LIBRARIES],
    )
    return ffi


ffibuilder = make_ffi()
