"""SipHash-2-4 (Aumasson and Bernstein, 2012): a keyed hash of short messages that nobody without the key can predict.

For numbers that a peer sees and may not foresee: initial sequence numbers and SYN cookies. A message
is words of 8 bytes, little-endian: `start`, `absorb` each, `finish` with the last word, whose top byte is the message's
length. Words are int64, and wrap.
"""

from typing import Any

import numpy as np

from mpserve.dataplane.jit import JIT, compiled

_V0, _V1, _V2, _V3 = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573


def _plus_python(a: int, b: int) -> Any:
    total = (int(a) + int(b)) & ((1 << 64) - 1)
    return np.int64(total - (1 << 64) if total >> 63 else total)


@compiled
def _plus_compiled(a, b):
    return a + b  # compiled, int64 wraps


_plus = _plus_compiled if JIT else _plus_python


@compiled
def _rotate(word, bits):
    return (word << bits) | ((word >> (64 - bits)) & ((1 << bits) - 1))


@compiled
def _round(v0, v1, v2, v3):
    v0, v2 = _plus(v0, v1), _plus(v2, v3)
    v1, v3 = _rotate(v1, 13) ^ v0, _rotate(v3, 16) ^ v2
    v0, v2 = _plus(_rotate(v0, 32), v3), _plus(v2, v1)
    v1, v3 = _rotate(v1, 17) ^ v2, _rotate(v3, 21) ^ v0
    return v0, v1, _rotate(v2, 32), v3


@compiled
def start(key0, key1):
    """The state of a hash under a key of two words."""
    key0, key1 = np.int64(key0), np.int64(key1)
    return key0 ^ _V0, key1 ^ _V1, key0 ^ _V2, key1 ^ _V3


@compiled
def absorb(state, word):
    word = np.int64(word)
    v0, v1, v2, v3 = state
    v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
    v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ word, v1, v2, v3


@compiled
def finish(state, last):
    """The hash: 64 bits as an int64."""
    v0, v1, v2, v3 = absorb(state, last)
    v2 = v2 ^ 0xFF
    for _ in range(4):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


@compiled
def absorb_addresses(core, key):
    """The state under this boot's key after both addresses of a flow, 32 bytes."""
    state = start(core.sip_key0, core.sip_key1)
    state = absorb(state, key.remote_high)
    state = absorb(state, key.remote)
    state = absorb(state, key.local_high)
    return absorb(state, key.local)
