"""The processor's time stamp counter, as DPDK reads it, for Python code outside the path."""

from __future__ import annotations


def read() -> int:
    from pydpdk.extension import lib

    return int(lib.pydpdk_rdtsc())


def hz() -> int:
    """Its frequency."""
    import pydpdk

    return int(pydpdk.tsc_hz())
