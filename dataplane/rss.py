"""Receive-side scaling as a NIC does it: the Toeplitz hash of a flow, and the queue that the redirection table gives it.

Microsoft, "RSS hashing types"; the verification suite there is the test. It serves receive flow deliver (Fastsocket, section
3.3): an outgoing connection takes a source port whose replies the NIC puts on the queue of the core that connects.
"""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8, load64
from mpserve.dataplane.switchboard import KEY_BYTES, REDIRECTIONS, SWITCHBOARD, switchboard_at

_KEY, _TABLE = SWITCHBOARD.fields["rss_key"][1], SWITCHBOARD.fields["rss_table"][1]  # type: ignore[index]
assert KEY_BYTES == 40


@compiled
def toeplitz(key, source, destination, source_port, destination_port):
    """The 32-bit hash of an IPv4 TCP segment's addresses and ports with the 40 bytes at `key`, as it arrives."""
    hashed = np.int64(0)
    hashed ^= _hash_word(key, source & 0xFFFFFFFF)
    hashed ^= _hash_word(key + 4, destination & 0xFFFFFFFF)
    return hashed ^ _hash_word(key + 8, ((source_port & 0xFFFF) << 16) | (destination_port & 0xFFFF))


@compiled
def _hash_word(key, word):
    """For each bit of a word that is set, the 32 bits of the key from there on."""
    hashed, window = np.int64(0), load64(key)
    for bit in range(32):
        if (word >> (31 - bit)) & 1:
            hashed ^= (window >> (32 - bit)) & 0xFFFFFFFF
    return hashed


@compiled
def queue_of(core, source, destination, source_port, destination_port):
    """The queue, which is the member's number, that a segment of this flow arrives on."""
    hashed = toeplitz(core.switchboard + _KEY, source, destination, source_port, destination_port)
    return load8(core.switchboard + _TABLE + (hashed & (REDIRECTIONS - 1)))


@compiled
def comes_home(core, remote, local, remote_port, local_port):
    """Whether replies of an outgoing flow arrive at this core, or nobody can tell."""
    return (
        switchboard_at(core.switchboard).rss == 0
        or queue_of(core, remote, local, remote_port, local_port) == core.member
    )
