"""The time stamp counter for compiled code of the rig, which has no device and with it none of DPDK's EAL; x86-64."""

import time

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mpserve.dataplane import tsc
from mpserve.dataplane.jit import unit


@intrinsic
def _counter(typing_context):
    def lower(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.IntType(64), [])
        return builder.call(builder.module.declare_intrinsic("llvm.readcyclecounter", (), kind), [])

    return types.int64(), lower


@unit("rig_read_tsc")
def read_tsc():
    """As `tsc.read`, by address."""
    return _counter()


def measure_hz(seconds: float = 0.02) -> int:
    """Cycles in a second: DPDK knows only once its EAL is there."""
    counted, started = tsc.read(), time.monotonic_ns()
    time.sleep(seconds)
    return round((tsc.read() - counted) * 1e9 / (time.monotonic_ns() - started))
