"""Which queue a flow's frames arrive at, where that is ours to say: the hash that NICs compute, of a key that we set.

Receive-side scaling hashes addresses and ports (Toeplitz) and looks the queue up in a table by the lowest bits. A packet socket
gets the same in the kernel (`packet_filter`). TCP over IPv4 is spread; all else, and every fragment, arrives at queue 0.
For setting up, and for tests: what compiled code needs of it has its own.
"""

from __future__ import annotations

# Microsoft's key, for which the test vectors of the RSS specification are given.
KEY = bytes.fromhex(
    "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa"
)  # 40 bytes: 36 of input, of which TCP over IPv4 uses 12, and 4
ENTRIES = 128  # of the table; a NIC's own is this one repeated, or a part of it that repeats
WORDS = 3  # of input: source address, destination address, both ports


def key_of(length: int) -> bytes:
    """The key for a NIC that wants `length` bytes (52 on some): repeated, for only the first 16 concern us."""
    return (KEY * (length // len(KEY) + 1))[:length]


def bit_masks(bit: int) -> tuple[int, int, int]:
    """For each word of input which of its bits the bit `bit` of the hash (0 the lowest) is the parity of."""
    key = int.from_bytes(KEY, "big")
    masks = []
    for word in range(WORDS):
        mask = 0
        for at in range(32):  # the key's 32 bits from here on are added when this bit of input is set
            window = key >> (len(KEY) * 8 - 32 - word * 32 - at) & 0xFFFFFFFF
            mask |= (window >> bit & 1) << (31 - at)
        masks.append(mask)
    return masks[0], masks[1], masks[2]


def toeplitz(source: bytes, destination: bytes, source_port: int, destination_port: int) -> int:
    """The 32-bit hash of a received frame: `source` is the peer. Addresses are 4 bytes."""
    words = (int.from_bytes(source, "big"), int.from_bytes(destination, "big"), source_port << 16 | destination_port)
    found = 0
    for bit in range(32):
        parity = sum((word & mask).bit_count() for word, mask in zip(words, bit_masks(bit), strict=True)) & 1
        found |= parity << bit
    return found


def table(queues: int, entries: int = ENTRIES, period: int = ENTRIES) -> list[int]:
    """The redirection table, of `entries`: the queues in turn, from the start again after every `period` entries."""
    return [entry % period % queues for entry in range(entries)]


def queue_of(source: bytes, destination: bytes, source_port: int, destination_port: int, queues: int) -> int:
    """The queue at which a TCP segment from `source` arrives, by a table of ENTRIES."""
    return toeplitz(source, destination, source_port, destination_port) % ENTRIES % queues
