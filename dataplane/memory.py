"""Memory by address (int64), the same compiled and as plain Python: loads, stores, copies, records, arrays.

Compiled, each is one instruction or so and nothing is checked: whoever passes an address has checked the length. As
plain Python (NUMBA_DISABLE_JIT=1) every access must lie inside a region made by `allocate` or `register`, so the suite
run that way finds any access beyond a frame or a table.
"""

# numba picks one of two definitions of a function; to a type checker that is redefinition.
# mypy: disable-error-code="no-redef, return-value, misc, index"

import bisect
import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from mpserve.dataplane.jit import CHECKS, JIT, PYTHON_UNITS, compiled

_I8, _I64, _I128 = ir.IntType(8), ir.IntType(64), ir.IntType(128)

# ---------------------------------------------------------------- regions: what plain Python may touch

_STARTS: list[int] = []
_REGIONS: dict[
    int, tuple[int, Any]
] = {}  # start -> (end, the array that owns the memory; rows of `Row` if it has fields)


class Row(np.void):
    """A record as plain-Python code sees it: fields are attributes, `flags` too, which numpy's own record hides."""

    @property
    def flags(self) -> Any:
        return self["flags"]

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except ValueError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


def rows(array: np.ndarray) -> np.ndarray:
    """The array with its records as `Row`s, which are several times quicker than numpy's own."""
    return array.view(np.dtype((Row, array.dtype)), np.ndarray) if array.dtype.names else array


def register(array: np.ndarray) -> int:
    """Let plain-Python code reach the memory of `array`; returns its address. Compiled code needs no such leave."""
    start = array.ctypes.data
    if start not in _REGIONS:
        bisect.insort(_STARTS, start)
    _REGIONS[start] = (start + array.nbytes, rows(array))
    return start


def unregister(address: int) -> None:
    """Forget a region, so that a later access to it is an error again."""
    if _REGIONS.pop(address, None) is not None:
        _STARTS.pop(bisect.bisect_left(_STARTS, address))


def allocate(dtype: Any, count: int) -> np.recarray:
    """A zeroed array of `count` items, 64-byte aligned, as a recarray where `dtype` has fields; registered."""
    dtype = np.dtype(dtype)
    raw = np.zeros(dtype.itemsize * count + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    array = raw[skip : skip + dtype.itemsize * count].view(dtype)
    if dtype.names:
        array = array.view(np.recarray)
    register(array)
    return array


def region(address: int, length: int) -> int:
    """The start of the region that holds [address, address + length); IndexError if none does."""
    at = bisect.bisect_right(_STARTS, address) - 1
    if at < 0 or length < 0 or address + length > _REGIONS[_STARTS[at]][0]:
        raise IndexError(f"{length} bytes at {address:#x} lie in no known region")
    return _STARTS[at]


def read_bytes(address: int, length: int) -> bytes:
    """The bytes at an address, for Python code outside the path."""
    return ctypes.string_at(address, length)


def write_bytes(address: int, data: bytes) -> None:
    """Put bytes at an address, for Python code outside the path."""
    ctypes.memmove(address, data, len(data))


# ---------------------------------------------------------------- loads and stores


def _load(bits: int, swap: bool) -> Callable[[int], int]:
    if not JIT:
        size, order = bits // 8, "big" if swap else "little"

        def load(address):
            region(int(address), size)
            value = int.from_bytes(ctypes.string_at(int(address), size), order)
            return np.int64(value - (1 << 64) if value >> 63 else value)

        return load

    @intrinsic
    def load(typing_context, address):
        def lower(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            value = builder.load(pointer, align=1)
            if swap:
                value = builder.bswap(value)
            return builder.zext(value, _I64) if bits < 64 else value

        return types.int64(types.int64), lower

    return load


def _store(bits: int, swap: bool) -> Callable[[int, int], None]:
    if not JIT:
        size, order = bits // 8, "big" if swap else "little"

        def store(address, value):
            region(int(address), size)
            ctypes.memmove(int(address), (int(value) & ((1 << bits) - 1)).to_bytes(size, order), size)

        return store

    @intrinsic
    def store(typing_context, address, value):
        def lower(context, builder, signature, arguments):
            word = arguments[1] if bits == 64 else builder.trunc(arguments[1], ir.IntType(bits))
            pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            builder.store(builder.bswap(word) if swap else word, pointer, align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), lower

    return store


load8, store8 = _load(8, False), _store(8, False)
load16, load32, load64 = _load(16, True), _load(32, True), _load(64, True)  # network order
store16, store32, store64 = _store(16, True), _store(32, True), _store(64, True)
native16, native32, native64 = _load(16, False), _load(32, False), _load(64, False)  # this machine's order
set_native16, set_native32, set_native64 = _store(16, False), _store(32, False), _store(64, False)

# ---------------------------------------------------------------- copies, arithmetic, calls


def _copy_python(to: int, source: int, length: int) -> None:
    region(int(to), int(length))
    region(int(source), int(length))
    ctypes.memmove(int(to), int(source), int(length))


@intrinsic
def _copy_compiled(typing_context, to, source, length):
    def lower(context, builder, signature, arguments):
        pointer = _I8.as_pointer()
        function = builder.module.declare_intrinsic("llvm.memcpy", [pointer, pointer, _I64])
        to, source = (builder.inttoptr(a, pointer) for a in arguments[:2])
        builder.call(function, [to, source, arguments[2], ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), lower


def _mix_python(a: int, b: int) -> int:
    product = (int(a) & (2**64 - 1)) * (int(b) & (2**64 - 1))
    folded = (product >> 64) ^ (product & (2**64 - 1))
    return np.int64(folded - (1 << 64) if folded >> 63 else folded)


@intrinsic
def _mix_compiled(typing_context, a, b):
    def lower(context, builder, signature, arguments):
        wide = builder.mul(builder.zext(arguments[0], _I128), builder.zext(arguments[1], _I128))
        high = builder.trunc(builder.lshr(wide, ir.Constant(_I128, 64)), _I64)
        return builder.xor(high, builder.trunc(wide, _I64))

    return types.int64(types.int64, types.int64), lower


def _call(count: int) -> Callable[..., int]:
    """A call of a C function `int64 f(int64, ...)` of `count` arguments by address."""
    if not JIT:
        return lambda address, *arguments: np.int64(PYTHON_UNITS[int(address)](*arguments))

    signature = types.int64(*[types.int64] * (count + 1))

    def lower(context, builder, signature, arguments):
        function = ir.FunctionType(_I64, [_I64] * count)
        return builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])

    if count == 0:

        @intrinsic
        def call(typing_context, address):
            return signature, lower
    elif count == 1:

        @intrinsic
        def call(typing_context, address, a):
            return signature, lower
    elif count == 2:

        @intrinsic
        def call(typing_context, address, a, b):
            return signature, lower
    elif count == 3:

        @intrinsic
        def call(typing_context, address, a, b, c):
            return signature, lower
    else:

        @intrinsic
        def call(typing_context, address, a, b, c, d):
            return signature, lower

    return call


copy = _copy_compiled if JIT else _copy_python  # memcpy: the ranges must not overlap
mix = _mix_compiled if JIT else _mix_python  # the two halves of the 128-bit product, xored
call0, call1, call2, call3, call4 = _call(0), _call(1), _call(2), _call(3), _call(4)

# ---------------------------------------------------------------- records


def record_at(dtype: np.dtype) -> Callable[[int], Any]:
    """A function that gives the record of type `dtype` at an address."""
    if not JIT:

        def at(address):
            start = region(int(address), dtype.itemsize)
            owner = _REGIONS[start][1]
            if owner.dtype == dtype:
                return owner[(int(address) - start) // dtype.itemsize]
            raw = (ctypes.c_uint8 * dtype.itemsize).from_address(int(address))
            return rows(np.frombuffer(raw, dtype))[0]

        return at

    record = numba.from_dtype(dtype)

    @intrinsic
    def at(typing_context, address):
        def lower(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(record))

        return record(types.int64), lower

    return at


def _address_of_python(record: Any) -> int:
    return np.int64(np.frombuffer(record, np.uint8).ctypes.data)  # its own __array_interface__ lists every field


@intrinsic
def _address_of_compiled(typing_context, record):
    def lower(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], _I64)

    return types.int64(record), lower


address_of = _address_of_compiled if JIT else _address_of_python


def table_of(owner: np.dtype, dtype: np.dtype, base: str, count: str) -> Callable[[Any, int], Any]:
    """A function (owner record, index) -> record, for the table whose address and length are fields of the owner.

    With NUMBA_BOUNDSCHECK an index outside the table is written to the owner's `fault` and record 0 is used, so that
    whoever ran the unit can raise.
    """
    at, size = record_at(dtype), dtype.itemsize
    base_offset, count_offset = owner.fields[base][1], owner.fields[count][1]
    fault_offset = owner.fields["fault"][1]

    @compiled
    def unchecked(core, index):
        return at(native64(address_of(core) + base_offset) + np.int64(index) * size)

    @compiled
    def checked(core, index):
        here = address_of(core)
        if index < 0 or index >= native64(here + count_offset):
            set_native64(here + fault_offset, base_offset * 2**32 + (np.int64(index) & 0xFFFFFFFF))
            return at(native64(here + base_offset))
        return at(native64(here + base_offset) + np.int64(index) * size)

    def python(core, index):
        if not 0 <= index < core[count]:
            raise IndexError(f"{base}[{index}] of {core[count]}")
        return _REGIONS[int(core[base])][1][int(index)]

    if not JIT:
        return python
    return checked if CHECKS else unchecked


def words_of(owner: np.dtype, base: str, count: str) -> tuple[Callable, Callable]:
    """Functions (owner, index) -> int and (owner, index, value) for a table of int64, checked as `table_of` is."""
    word = np.dtype([("value", "i8")])
    at = table_of(owner, word, base, count)

    @compiled
    def get(core, index):
        return at(core, index).value

    @compiled
    def put(core, index, value):
        at(core, index).value = value

    return get, put
