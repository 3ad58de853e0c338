"""The flow table against a dict: linear probing and backward-shift deletion lose nothing and find nothing else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mpserve.dataplane.core import make_buckets
from mpserve.dataplane.jit import JIT, unit
from mpserve.dataplane.layout import CONN, VERSION_LINE, key_at
from mpserve.dataplane.memory import allocate, unregister
from mpserve.dataplane.tcp.table import find, insert, remove

SLOTS, BUCKETS = 16, 32
_SIZE = CONN.itemsize


@unit("table_find")
def table_find(buckets, mask, key, records):
    """`find` by address, for tests."""
    return find(buckets, mask, key_at(key), records, _SIZE)


@unit("table_insert")
def table_insert(buckets, mask, tag, slot):
    """`insert` by address, for tests."""
    insert(buckets, mask, tag, slot)
    return 0


@unit("table_remove")
def table_remove(buckets, mask, tag, slot):
    """`remove` by address, for tests."""
    remove(buckets, mask, tag, slot)
    return 0


flows = st.integers(0, 11)
# Few different tags, near each other and at the table's end, so that runs collide and wrap.
TAGS = np.array([0, 0, 1, 31, 31, 30, 30, 63, 0xFFFFFFFF, 0x80000000, 2, 32])


@settings(max_examples=300 if JIT else 100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["insert", "remove"]), flows), max_size=60))
def test_like_a_dict(steps):
    buckets, records, key = make_buckets(BUCKETS), allocate(CONN, SLOTS), allocate(CONN, 1)
    model: dict[int, int] = {}
    free = list(range(SLOTS))
    for op, flow in steps:
        tag = int(TAGS[flow])
        if op == "insert" and flow not in model:
            slot = free.pop()
            records[slot].remote, records[slot].ports, records[slot].hash = flow + 1, 7, tag
            table_insert(buckets.ctypes.data, BUCKETS - 1, tag, slot)
            model[flow] = slot
        elif op == "remove" and flow in model:
            slot = model.pop(flow)
            table_remove(buckets.ctypes.data, BUCKETS - 1, tag, slot)
            free.append(slot)
        for other in range(len(TAGS)):
            key[0].remote, key[0].ports, key[0].hash = other + 1, 7, TAGS[other]
            found = table_find(buckets.ctypes.data, BUCKETS - 1, key.ctypes.data, records.ctypes.data)
            assert found == model.get(other, -1)
    assert np.count_nonzero(buckets) == len(model)
    for array in (records, key):
        unregister(array.ctypes.data)
    unregister(buckets.ctypes.data - 8 * VERSION_LINE)


def test_removing_what_is_not_there_changes_nothing():
    buckets = make_buckets(BUCKETS)
    table_insert(buckets.ctypes.data, BUCKETS - 1, 5, 1)
    table_remove(buckets.ctypes.data, BUCKETS - 1, 5, 2)
    table_remove(buckets.ctypes.data, BUCKETS - 1, 6, 1)
    assert np.count_nonzero(buckets) == 1
    unregister(buckets.ctypes.data - 8 * VERSION_LINE)
