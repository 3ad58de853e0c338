"""Words that two threads or cores share: every such word is read and written through these, and only these.

Plain loads and stores would be right on x86-64 alone. Acquire and release are what C11 means by them, so arm64 is served
as well. Addresses are of int64 words, 8-byte aligned.
"""

import ctypes
import threading

import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from mpserve.dataplane.jit import JIT

_I64 = ir.IntType(64)
_lock = threading.Lock()  # plain Python's stand-in for the processor's


def _load_acquire_python(address):
    with _lock:
        return ctypes.c_int64.from_address(int(address)).value


def _store_release_python(address, value):
    with _lock:
        ctypes.c_int64.from_address(int(address)).value = int(value)


def _compare_and_swap_python(address, expected, value):
    with _lock:
        word = ctypes.c_int64.from_address(int(address))
        found = word.value
        if found == int(expected):
            word.value = int(value)
        return found


@intrinsic
def _load_acquire_compiled(typing_context, address):
    def lower(context, builder, signature, arguments):
        return builder.load_atomic(builder.inttoptr(arguments[0], _I64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), lower


@intrinsic
def _store_release_compiled(typing_context, address, value):
    def lower(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], builder.inttoptr(arguments[0], _I64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), lower


@intrinsic
def _compare_and_swap_compiled(typing_context, address, expected, value):
    def lower(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        pair = builder.cmpxchg(pointer, arguments[1], arguments[2], "acq_rel", "acquire")
        return builder.extract_value(pair, 0)

    return types.int64(types.int64, types.int64, types.int64), lower


def _fence(ordering: str):  # type: ignore[no-untyped-def]
    """A fence between the accesses before and behind it, of this thread; plain Python's lock is one already."""
    if not JIT:
        return lambda: None

    @intrinsic
    def compiled_fence(typing_context):
        def lower(context, builder, signature, arguments):
            builder.fence(ordering)
            return context.get_dummy_value()

        return types.void(), lower

    return compiled_fence


load_acquire = _load_acquire_compiled if JIT else _load_acquire_python
store_release = _store_release_compiled if JIT else _store_release_python
# Puts `value` where `expected` stands; what was found there.
compare_and_swap = _compare_and_swap_compiled if JIT else _compare_and_swap_python
# Loads before it, and loads and stores behind it; the like for stores behind it; everything.
fence_acquire, fence_release, fence = _fence("acquire"), _fence("release"), _fence("seq_cst")
