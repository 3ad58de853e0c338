"""SipHash-2-4 against the vectors of its authors: key 00 01 .. 0f, messages 00 01 02 .. of each length; and what is made of it."""

import numpy as np
import pytest
from peer import MSS_1460, Peer

from mpserve.dataplane.siphash import absorb, finish, start
from mpserve.dataplane.tcp.state import State

KEY = bytes(range(16))
VECTORS = {  # length -> hash
    0: 0x726FDB47DD0E0E31,
    1: 0x74F839C593DC67FD,
    2: 0x0D6C8009D9A94F5A,
    3: 0x85676696D7FB7E2D,
    7: 0xAB0200F58B01D137,
    8: 0x93F5F5799A932462,
    15: 0xA129CA6149BE45E5,
    16: 0x3F2ACC7F57C29BDB,
    24: 0xB8AD50C6F649AF94,
    31: 0x32D892FAD841C342,
    32: 0x7127512F72F27CCE,
    36: 0x314DFFBE0815A3B4,
    40: 0x0E3EA96B5304A7D0,
    41: 0xAD0C42D6FC585992,
    48: 0xE612A3CB9ECBA951,
    63: 0x958A324CEB064572,
}


def word(data: bytes) -> np.int64:
    return np.int64(int.from_bytes(data, "little", signed=True))


@pytest.mark.parametrize("length", VECTORS)
def test_reference_vectors(length):
    message = bytes(range(length))
    whole = length & ~7
    state = start(word(KEY[:8]), word(KEY[8:]))
    for at in range(0, whole, 8):
        state = absorb(state, word(message[at : at + 8]))
    hashed = finish(state, word(message[whole:].ljust(7, b"\0") + bytes([length])))
    assert int(hashed) & (1 << 64) - 1 == VECTORS[length]


def numbers(stack, count=8):
    """The initial sequence numbers of flows that differ in a port, less the clock."""
    found = []
    for _ in range(count):
        peer = Peer(stack).reach(State.SYN_RECEIVED, MSS_1460)
        found.append((peer.stack_iss - (stack.now >> 2)) & 0xFFFFFFFF)
    return found


@pytest.mark.parametrize("field", ["sip_key0", "sip_key1"])
@pytest.mark.parametrize("backlog", [8, 1])
def test_both_words_of_the_key_count(make_stack, field, backlog):
    """For initial sequence numbers, and for the cookies of a full backlog."""
    one, other = make_stack(syn_backlog=backlog), make_stack(syn_backlog=backlog)
    assert numbers(one) == numbers(other)
    one, other = make_stack(syn_backlog=backlog), make_stack(syn_backlog=backlog)
    other.core.record[field] ^= 1
    assert not set(numbers(one)) & set(numbers(other))


def test_each_boot_draws_its_own_key(make_stack):
    one, other = make_stack(seed=None), make_stack(seed=None)
    assert one.core.record.sip_key0 != other.core.record.sip_key0
    assert one.core.record.sip_key1 != other.core.record.sip_key1
    assert not set(numbers(one)) & set(numbers(other))
