"""The flow tables: linear probing over 8-byte buckets (tag and slot), backward-shift deletion.

One implementation serves connections, the SYN backlog and TIME_WAIT: the records of all three begin with a KEY. The hash
is keyed by a secret drawn at boot, so that a peer can't aim at one bucket, and is not the hash that chose the NIC's queue.
Functions take the table's address, its mask, and the address and size of the records that slots number. The word before
the buckets is the table's version, for other cores that read it (`sharing`).
"""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import key_at
from mpserve.dataplane.memory import mix, native64, set_native64
from mpserve.dataplane.sharing import begin_change, end_change, is_unchanged, publish, published, version_before

NOT_FOUND = -1
_TRIES = 100  # looks at a table that is changed all the while


@compiled
def flow_hash(core, remote, local, ports):
    """32 bits over both addresses (low halves; the high halves differ only in IPv6) and both ports, keyed."""
    mixed = mix(np.int64(remote) ^ core.secret_a, np.int64(local) ^ core.secret_b)
    mixed = mix(mixed ^ np.int64(ports), core.secret_a)
    return (mixed ^ (mixed >> 32)) & 0xFFFFFFFF


@compiled
def same_flow(a, b):
    return (
        a.ports == b.ports
        and a.remote == b.remote
        and a.local == b.local
        and a.remote_high == b.remote_high
        and a.local_high == b.local_high
    )


@compiled
def find(buckets, mask, key, records, size):
    """The slot whose record has this key, or NOT_FOUND."""
    tag = np.int64(key.hash)
    at = tag & mask
    while True:
        bucket = native64(buckets + 8 * at)
        if bucket == 0:
            return NOT_FOUND
        if (bucket >> 32) & 0xFFFFFFFF == tag:
            slot = (bucket & 0xFFFFFFFF) - 1
            if same_flow(key_at(records + slot * size), key):
                return slot
        at = (at + 1) & mask


@compiled
def insert(buckets, mask, tag, slot):
    """Add a flow that is not in the table. The table is at least twice as large as the number of slots, so there is room."""
    at = np.int64(tag) & mask
    while native64(buckets + 8 * at) != 0:
        at = (at + 1) & mask
    publish(buckets + 8 * at, (np.int64(tag) << 32) | (np.int64(slot) + 1))


@compiled
def remove(buckets, mask, tag, slot):
    """Take a flow out and close the gap, so that no tombstones are left."""
    wanted = (np.int64(tag) << 32) | (np.int64(slot) + 1)
    gap = np.int64(tag) & mask
    while native64(buckets + 8 * gap) != wanted:
        if native64(buckets + 8 * gap) == 0:
            return
        gap = (gap + 1) & mask
    begin_change(buckets - 8)
    at = (gap + 1) & mask
    while True:
        bucket = native64(buckets + 8 * at)
        if bucket == 0:
            break
        home = (bucket >> 32) & mask
        if (at - home) & mask >= (at - gap) & mask:  # it may move back to the gap
            set_native64(buckets + 8 * gap, bucket)
            gap = at
        at = (at + 1) & mask
    set_native64(buckets + 8 * gap, 0)
    end_change(buckets - 8)


@compiled
def is_in_shared(buckets, mask, key, records, count, size):
    """Whether a flow is in another core's table, which that core may change meanwhile; `count` records of `size` bytes."""
    for _ in range(_TRIES):
        version = version_before(buckets - 8)
        if _is_there(buckets, mask, key, records, count, size):
            return True
        if is_unchanged(buckets - 8, version):
            return False
    return False


@compiled
def _is_there(buckets, mask, key, records, count, size):
    tag = np.int64(key.hash)
    at = tag & mask
    for _ in range(mask + 1):
        bucket = published(buckets + 8 * at)
        if bucket == 0:
            return False
        if (bucket >> 32) & 0xFFFFFFFF == tag:
            slot = (bucket & 0xFFFFFFFF) - 1
            if 0 <= slot < count and same_flow(key_at(records + slot * size), key):
                return True
        at = (at + 1) & mask
    return False
