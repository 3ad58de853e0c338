"""What two cores share, under stress: two threads in compiled code at once, and the same without the fences.

On x86-64 acquire and release are plain loads and stores, in order; what can be seen to matter there is the full fence of
sleepers and the version of tables. On arm64 the other tests would fail without acquire and release as well.
"""

import os
import threading

import numpy as np
import pytest

from mpserve.dataplane.atomics import compare_and_swap, load_acquire, store_release
from mpserve.dataplane.core import make_buckets
from mpserve.dataplane.jit import JIT, compiled, unit
from mpserve.dataplane.layout import CONN, VERSION_LINE, key_at
from mpserve.dataplane.memory import allocate, load8, native64, set_native64, store8, unregister
from mpserve.dataplane.sharing import (
    ASLEEP,
    AWAKE,
    RING_HEADER,
    fall_asleep,
    has_to_be_woken,
    lock,
    ring_front,
    ring_is_empty,
    ring_publish,
    ring_release,
    ring_reserve,
    take_over,
    unlock,
)
from mpserve.dataplane.tcp.table import _is_there, insert, is_in_shared, remove

ROUNDS = 300_000
two_cores = pytest.mark.skipif(
    not JIT or len(os.sched_getaffinity(0)) < 2, reason="needs compiled code and two cores, to run on both at once"
)


def together(*calls):
    """Run each (unit, arguments) in a thread and on a core of its own, at once; what they return.

    A call leaves the interpreter alone.
    """
    results = [0] * len(calls)
    cores = sorted(os.sched_getaffinity(0))
    ready = threading.Barrier(len(calls))

    def run(number, each, arguments):
        os.sched_setaffinity(0, {cores[number % len(cores)]})  # of this thread alone
        ready.wait()
        results[number] = each.call(*arguments)

    for each, _ in calls:
        each.address  # noqa: B018  # compiled before the race
    threads = [threading.Thread(target=run, args=(n, *call)) for n, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# ---------------------------------------------------------------- rings


@compiled
def _length(number):
    """Of the record of that number: 0 to 511, all different ones in turn."""
    return (number * 197) & 511


@unit("test_ring_produce")
def produce(ring, size, count, unused):
    """Publish `count` records, each full of its number; how often the ring was full."""
    full = 0
    for number in range(count):
        length = _length(number)
        at = ring_reserve(ring, size, length)
        while at == 0:
            full += 1
            at = ring_reserve(ring, size, length)
        for i in range(length):
            store8(at + i, number & 255)
        ring_publish(ring, size, length, number % 200)
    return full


@unit("test_ring_consume")
def consume(ring, size, count, unused):
    """Take `count` records; how many bytes, lengths and kinds were wrong."""
    wrong = 0
    for number in range(count):
        record = ring_front(ring, size)
        while record == 0:
            record = ring_front(ring, size)
        length = native64(record) >> 8
        wrong += length != _length(number)
        wrong += native64(record) & 255 != number % 200
        for i in range(min(length, _length(number))):
            wrong += load8(record + 8 + i) != number & 255
        ring_release(ring, record)
    return wrong


@two_cores
@pytest.mark.parametrize("size", [1024, 1 << 16])
def test_records_cross_in_order_and_whole(size):
    memory = allocate(np.uint8, RING_HEADER + size)
    ring = memory.ctypes.data
    wrong, full = together((consume, (ring, size, ROUNDS, 0)), (produce, (ring, size, ROUNDS, 0)))
    assert wrong == 0
    assert full > 0 or size > 1024
    head, tail = memory[:RING_HEADER].view(np.int64)[[0, 8]]
    assert head == tail
    unregister(ring)


@pytest.mark.parametrize("size", [1024, 2048])
def test_a_ring_of_one_thread_is_a_queue(size):
    memory = allocate(np.uint8, RING_HEADER + size)
    ring = memory.ctypes.data
    sent = taken = 0
    rng = np.random.default_rng(1)
    for _ in range(400):
        if rng.integers(2):
            at = ring_room(ring, size, int(_length(sent)))
            if at:
                ring_put(ring, size, int(_length(sent)), sent % 200)
                sent += 1
        elif taken < sent:
            assert ring_next(ring, size, 0, 0) == int(_length(taken)) << 8 | taken % 200
            taken += 1
        else:
            assert ring_next(ring, size, 0, 0) == -1
    assert taken > 50 and ring_room(ring, size, size) == 0
    unregister(ring)


@unit("test_ring_room")
def _room(ring, size, length, unused):
    return ring_reserve(ring, size, length)


@unit("test_ring_put")
def ring_put(ring, size, length, kind):
    ring_publish(ring, size, length, kind)
    return 0


def ring_room(ring, size, length):
    return _room(ring, size, length, 0)


@unit("test_ring_next")
def ring_next(ring, size, unused, also_unused):
    """The word of the oldest record, which is taken off; -1 if there is none."""
    record = ring_front(ring, size)
    if record == 0:
        return -1
    word = native64(record)
    ring_release(ring, record)
    return word


# ---------------------------------------------------------------- sleepers

# Words of a duel, each in a line of its own: a ring's two, the sleeper's, and how far each side is.
SLEEPER, ROUND, DONE = 256, 320, 384


@unit("test_sleeper")
def sleeper(memory, rounds, fenced, unused):
    """Fall asleep in every round, unless something has come; in how many nobody woke us for something that had."""
    lost = 0
    for number in range(1, rounds + 1):
        while load_acquire(memory + ROUND) != number:
            pass
        if fenced:
            fall_asleep(memory + SLEEPER)
        else:
            store_release(memory + SLEEPER, ASLEEP)
        is_asleep = ring_is_empty(memory)
        store_release(memory + DONE, number)
        while load_acquire(memory + DONE) != -number:
            pass
        lost += is_asleep and native64(memory + SLEEPER) == ASLEEP
        set_native64(memory + SLEEPER, AWAKE)
        set_native64(memory + 64, native64(memory))
        store_release(memory + DONE, 0)
    return lost


@unit("test_sender")
def sender(memory, rounds, fenced, unused):
    """Send one thing in every round, and wake whoever sleeps; how often that was."""
    wakes = 0
    for number in range(1, rounds + 1):
        store_release(memory + ROUND, number)
        store_release(memory, native64(memory) + 8)
        if fenced:
            wakes += has_to_be_woken(memory + SLEEPER)
        elif load_acquire(memory + SLEEPER) == ASLEEP:
            wakes += compare_and_swap(memory + SLEEPER, ASLEEP, AWAKE) == ASLEEP
        while load_acquire(memory + DONE) != number:
            pass
        store_release(memory + DONE, -number)
        while load_acquire(memory + DONE) != 0:
            pass
    return wakes


def duel(fenced):
    memory = allocate(np.int64, 64)
    lost, _ = together(
        (sleeper, (memory.ctypes.data, ROUNDS, fenced, 0)), (sender, (memory.ctypes.data, ROUNDS, fenced, 0))
    )
    unregister(memory.ctypes.data)
    return lost


@two_cores
def test_nobody_sleeps_through_what_was_sent():
    assert duel(fenced=1) == 0


@two_cores
def test_without_the_fence_somebody_would():
    """The test above can fail: processors put a load before an earlier store."""
    assert any(duel(fenced=0) for _ in range(10))


# ---------------------------------------------------------------- tables that others read

MASK, OTHERS = 63, 16
_CONN_BYTES = CONN.itemsize


@unit("test_table_change")
def change(table, records, rounds, presence):
    """In each round flow 0 stands behind others with the same home, and while these are removed moves there, step by step.

    The word at `presence` is odd while flow 0 is in the table, and negative at the end.
    """
    for number in range(rounds):
        for slot in range(1, OTHERS):
            insert(table, MASK, key_at(records + slot * _CONN_BYTES).hash, slot)
        insert(table, MASK, key_at(records).hash, 0)
        store_release(presence, 2 * number + 1)
        for slot in range(1, OTHERS):
            remove(table, MASK, key_at(records + slot * _CONN_BYTES).hash, slot)
        store_release(presence, 2 * number + 2)
        remove(table, MASK, key_at(records).hash, 0)
    store_release(presence, -1)
    return rounds


@unit("test_table_look")
def look(table, records, versioned, presence):
    """Look for flow 0 until the changes end; how often it was not found while it was there all the time."""
    missed = 0
    key = key_at(records)
    while True:
        before = load_acquire(presence)
        if before < 0:
            return missed
        if versioned:
            found = is_in_shared(table, MASK, key, records, OTHERS, _CONN_BYTES)
        else:
            found = _is_there(table, MASK, key, records, OTHERS, _CONN_BYTES)
        missed += before & 1 == 1 and not found and load_acquire(presence) == before


def misses(versioned):
    buckets, records, presence = make_buckets(MASK + 1), allocate(CONN, OTHERS), allocate(np.int64, 8)
    for slot in range(OTHERS):
        records[slot].remote, records[slot].ports, records[slot].hash = slot, 7, 60 + (slot << 6)
    table, rows, word = buckets.ctypes.data, records.ctypes.data, presence.ctypes.data
    missed, _ = together((look, (table, rows, versioned, word)), (change, (table, rows, ROUNDS, word)))
    assert not buckets.any()
    for address in (table - 8 * VERSION_LINE, rows, word):
        unregister(address)
    return missed


@two_cores
def test_a_flow_is_found_while_others_are_removed():
    assert misses(versioned=1) == 0


@two_cores
def test_without_versions_it_is_missed():
    """The test above can fail: a flow may be moved past whoever looks for it."""
    assert any(misses(versioned=0) for _ in range(10))


# ---------------------------------------------------------------- the lock

TOTAL, HERE = 128, 256  # of words in other lines than the lock: the sum; how many have come


@unit("test_adder")
def adder(memory, rounds, locked, holder):
    """Add one to a word so many times, in two steps that nothing but the lock keeps together; begin at once with another."""
    here = load_acquire(memory + HERE)
    while compare_and_swap(memory + HERE, here, here + 1) != here:
        here = load_acquire(memory + HERE)
    while load_acquire(memory + HERE) < 2:
        pass
    for _ in range(rounds):
        if locked:
            while lock(memory, holder) != 0:
                pass
        total = load_acquire(memory + TOTAL)
        store_release(memory + TOTAL, total + 1)
        if locked:
            unlock(memory)
    return 0


def added(locked):
    memory = allocate(np.int64, 64)
    together(*[(adder, (memory.ctypes.data, ROUNDS, locked, holder)) for holder in (1, 2)])
    total = int(memory[TOTAL // 8])
    unregister(memory.ctypes.data)
    return total


@two_cores
def test_one_at_a_time_holds_the_lock():
    assert added(locked=1) == 2 * ROUNDS


@two_cores
def test_without_the_lock_additions_are_lost():
    """The test above can fail."""
    assert any(added(locked=0) < 2 * ROUNDS for _ in range(10))


@unit("test_lock")
def try_lock(word, holder, dead, unused):
    """`lock`, or `take_over` from somebody dead."""
    return int(take_over(word, dead, holder)) if dead else lock(word, holder)


def test_a_dead_holder_loses_the_lock():
    memory = allocate(np.int64, 8)
    word = memory.ctypes.data
    assert try_lock(word, 3, 0, 0) == 0
    assert try_lock(word, 2, 0, 0) == 3
    assert try_lock(word, 2, 1, 0) == 0, "it is held by another than is said to be dead"
    assert try_lock(word, 2, 3, 0) == 1
    assert try_lock(word, 4, 0, 0) == 2
    unregister(word)
