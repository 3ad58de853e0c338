"""Sequence number arithmetic, RFC 9293 section 3.4: numbers are compared only through these functions.

Arguments may be any integers that are right modulo 2**32; results of `add` lie in [0, 2**32), those of `diff` in
[-2**31, 2**31).
"""

import numpy as np

from mpserve.dataplane.jit import compiled

_MASK = 0xFFFFFFFF
_HALF = 0x80000000


@compiled
def add(a, n):
    """a + n."""
    return (np.int64(a) + np.int64(n)) & _MASK


@compiled
def diff(a, b):
    """a - b, signed."""
    return ((np.int64(a) - np.int64(b) + _HALF) & _MASK) - _HALF


@compiled
def before(a, b):
    """a < b."""
    return diff(a, b) < 0


@compiled
def after(a, b):
    """a > b."""
    return diff(a, b) > 0


@compiled
def within(a, start, length):
    """start <= a < start + length."""
    return 0 <= diff(a, start) < length
