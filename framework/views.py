"""What can be done with a range of bytes (`View`) in compiled handlers and codecs. Every access is within the range.

Offsets are made int64 first, whatever whole number the handler gives, and compared without a sum that could wrap.

Reading outside gives -1 or nothing, writing outside writes nothing and gives -1, which the next `put` and `commit` pass on: so
a reply is put together without a test at each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpserve.dataplane.jit import JIT, inner
from mpserve.dataplane.memory import copy, load8, native64, store8
from mpserve.framework.codec import NOT_A_NUMBER
from mpserve.framework.values import View, ViewType, make_view, method, view_of, whole

_MOST_DIGITS = 18
_ONES, _HIGHS = 0x0101010101010101, -0x7F7F7F7F7F7F7F80  # every byte's lowest and highest bit, as int64


@inner
def byte_at(view, index):
    """The byte at an index, 0 to 255; -1 outside."""
    at = whole(index)
    if 0 <= at < view.length:
        return load8(view.address + at)
    return -1


@inner
def part(view, start, end):
    """The bytes from `start` to before `end`, as far as there are any."""
    first = min(max(whole(start), 0), view.length)
    last = min(max(whole(end), first), view.length)
    return make_view(view.address + first, last - first)


@inner
def find_in(address, start, end, byte):
    """The first place of a byte in [start, end) behind an address, -1 if it is not there; eight bytes at a time."""
    at = start
    pattern = _ONES * byte
    while at + 8 <= end:
        word = native64(address + at) ^ pattern
        if (word - _ONES) & ~word & _HIGHS:
            break
        at += 8
    while at < end:
        if load8(address + at) == byte:
            return at
        at += 1
    return -1


@inner
def find(view, byte, start=0):
    """The first place of a byte (0 to 255) at or behind `start`; -1 if it is not there."""
    return find_in(view.address, min(max(whole(start), 0), view.length), view.length, whole(byte))


@inner
def equals(view, other):
    """Whether the bytes are those of `other`, data or a constant."""
    given = view_of(other)
    return view.length == given.length and _are_same(view.address, given.address, given.length)


@inner
def starts_with(view, other):
    """Whether the first bytes are those of `other`."""
    given = view_of(other)
    return view.length >= given.length and _are_same(view.address, given.address, given.length)


@inner
def _are_same(a, b, length):
    for i in range(length):
        if load8(a + i) != load8(b + i):
            return False
    return True


@inner
def parse_int(view, start=0, end=NOT_A_NUMBER):
    """The decimal number in [start, end), a minus sign before it or not; NOT_A_NUMBER for anything else, or more than 18 digits."""
    last = view.length if end == NOT_A_NUMBER else min(whole(end), view.length)
    at = max(whole(start), 0)
    negative = byte_at(view, at) == 45 and at < last
    if negative:
        at += 1
    if at >= last or last - at > _MOST_DIGITS:
        return NOT_A_NUMBER
    number = 0
    while at < last:
        digit = load8(view.address + at) - 48
        if digit < 0 or digit > 9:
            return NOT_A_NUMBER
        number = 10 * number + digit
        at += 1
    return -number if negative else number


@inner
def put(view, offset, data):
    """Copy data or a constant to `offset`; the offset behind it, -1 if it does not fit."""
    given, at = view_of(data), whole(offset)
    if at < 0 or at > view.length - given.length:
        return -1
    copy(view.address + at, given.address, given.length)
    return at + given.length


@inner
def put_byte(view, offset, byte):
    """Set one byte; the offset behind it, -1 outside."""
    at = whole(offset)
    if at < 0 or at >= view.length:
        return -1
    store8(view.address + at, byte)
    return at + 1


@inner
def put_int(view, offset, number):
    """Write a number in decimal; the offset behind it, -1 if it does not fit."""
    start, rest = whole(offset), whole(number)
    is_negative = rest < 0
    length = _digits(rest) + is_negative
    if start < 0 or start > view.length - length:
        return -1
    at = view.address + start + length
    for _ in range(length - is_negative):
        at -= 1
        tens = _tenth(rest)
        store8(at, 48 + abs(rest - 10 * tens))
        rest = tens
    if is_negative:
        store8(at - 1, 45)
    return start + length


@inner
def _tenth(number):
    """Towards zero; the least int64, too, whose negative is none."""
    return (number + 9) // 10 if number < 0 else number // 10


@inner
def _digits(number):
    digits = 1
    while number >= 10 or number <= -10:
        number = _tenth(number)
        digits += 1
    return digits


@inner
def number(view, offset, length, big_endian):
    """The unsigned number of 1 to 8 bytes at an offset; -1 outside, and for what int64 can't hold."""
    first, count = whole(offset), whole(length)
    if first < 0 or count < 1 or count > 8 or first > view.length - count:
        return -1
    value = 0
    for i in range(count):
        value = value << 8 | load8(view.address + first + (i if big_endian else count - 1 - i))
    return value if value >= 0 else -1


METHODS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (byte_at, part, find, equals, starts_with, parse_int, put, put_byte, put_int, number)
}


def _install() -> None:
    for name, function in METHODS.items():
        if JIT:
            method(ViewType, name, function.py_func)  # type: ignore[attr-defined]
        else:
            setattr(View, name, function)


_install()
