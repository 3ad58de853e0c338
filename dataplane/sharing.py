"""What cores share, and in which order they see it: the one file whose code hangs on acquire, release and fences.

Five things: the owner word of a Core (two threads of one worker), rings of frames from one worker to another, the version of
a flow table that others read while its owner changes it, the word of a worker that sleeps, and a lock for what serves
comparison. Each has one writer a word, but the owner, the sleeper and the lock, which are taken by compare-and-swap. A process
killed at any point leaves all of them usable.
"""

from mpserve.dataplane.atomics import (
    compare_and_swap,
    fence,
    fence_acquire,
    fence_release,
    load_acquire,
    store_release,
)
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import CORE
from mpserve.dataplane.memory import address_of, native64, set_native64

# ---------------------------------------------------------------- the owner of a Core

FREE, PYTHON, STANDBY = 0, 1, 2
_OWNER = CORE.fields["owner"][1]  # type: ignore[index]


@compiled
def take(core, who):
    """Wait until the core is free, and own it. A standby gives it back between two turns."""
    while compare_and_swap(address_of(core) + _OWNER, FREE, who) != FREE:
        pass


@compiled
def take_if_free(core, who):
    """Own the core if nobody does; whether that came about."""
    return compare_and_swap(address_of(core) + _OWNER, FREE, who) == FREE


@compiled
def give_back(core):
    store_release(address_of(core) + _OWNER, FREE)


# ---------------------------------------------------------------- rings: one producer, one consumer

# A ring is a header of two cache lines, the producer's word in one and the consumer's in the other, and `size` bytes, a power of
# two. Both words count bytes since the beginning. A record is a word, length << 8 | kind, and its bytes, rounded up to words;
# none is wrapped around the end.
RING_HEADER = 128
_TAIL = 64  # of the consumer's word; the producer's is the first
_SKIP = 255  # the kind of what fills the ring up to its end


@compiled
def ring_reserve(ring, size, length):
    """Where a record of `length` bytes goes, for `ring_publish` of the same length; 0 if there is no room. The producer's."""
    room = 8 + ((length + 7) & ~7)
    head, tail = native64(ring), load_acquire(ring + _TAIL)
    at = head & (size - 1)
    skip = size - at if at + room > size else 0
    if head + skip + room - tail > size:
        return 0
    if skip > 0:
        set_native64(ring + RING_HEADER + at, ((skip - 8) << 8) | _SKIP)
        store_release(ring, head + skip)
        at = 0
    return ring + RING_HEADER + at + 8


@compiled
def ring_publish(ring, size, length, kind):
    """The consumer may have what was written where `ring_reserve` said."""
    head = native64(ring)
    set_native64(ring + RING_HEADER + (head & (size - 1)), (length << 8) | kind)
    store_release(ring, head + 8 + ((length + 7) & ~7))


@compiled
def ring_front(ring, size):
    """The address of the oldest record's word, behind which its bytes lie; 0 if there is none. The consumer's."""
    while True:
        tail = native64(ring + _TAIL)
        if load_acquire(ring) == tail:
            return 0
        at = ring + RING_HEADER + (tail & (size - 1))
        if native64(at) & 255 != _SKIP:
            return at
        ring_release(ring, at)


@compiled
def ring_release(ring, at):
    """The record at `at`, the oldest, has been read: its room may be written again."""
    store_release(ring + _TAIL, native64(ring + _TAIL) + 8 + (((native64(at) >> 8) + 7) & ~7))


@compiled
def ring_is_empty(ring):
    """Whether the consumer has everything that was published."""
    return load_acquire(ring) == native64(ring + _TAIL)


# ---------------------------------------------------------------- versions: tables that one changes and others read

# A table's entry is published when what it points to is written. The version stands in the word before a flow table's buckets. It
# is odd while flows are moved within the table; a reader that finds nothing, and another version than before, may have missed one
# on its way.


@compiled
def publish(address, word):
    """Write a word that leads others to what was written before it."""
    store_release(address, word)


@compiled
def published(address):
    """A word that leads to something: what it leads to is there."""
    return load_acquire(address)


@compiled
def begin_change(version):
    store_release(version, native64(version) + 1)
    fence_release()


@compiled
def end_change(version):
    store_release(version, native64(version) + 1)


@compiled
def version_before(version):
    """The version to read under: the next even one, or that of a change that does not end, whose owner is dead."""
    found = load_acquire(version)
    for _ in range(10_000):
        if found & 1 == 0:
            break
        found = load_acquire(version)
    return found


@compiled
def is_unchanged(version, before):
    """Whether what was read since `version_before` was one state of the table."""
    fence_acquire()
    return native64(version) == before


# ---------------------------------------------------------------- sleepers

AWAKE, ASLEEP = 0, 1


@compiled
def fall_asleep(word):
    """Say that whoever sends from now on has to wake us. Look for what was sent before once more, then sleep."""
    store_release(word, ASLEEP)
    fence()


@compiled
def wake_up(word):
    store_release(word, AWAKE)


@compiled
def has_to_be_woken(word):
    """Whether the worker whom something was just sent to sleeps; says so to one only of those who ask."""
    fence()
    return load_acquire(word) == ASLEEP and compare_and_swap(word, ASLEEP, AWAKE) == ASLEEP


# ---------------------------------------------------------------- a lock between workers

# Nothing on the way of a packet takes one, but in the shared accept queue that partitioned listeners are compared with.

UNLOCKED = 0
_PATIENCE = 10_000  # attempts, some 100 us: its holder may be dead


@compiled
def lock(word, holder):
    """Hold the lock as `holder`, which is not 0: 0 once it is held, or who has had it for so long that he may be dead."""
    found = UNLOCKED
    for _ in range(_PATIENCE):
        found = compare_and_swap(word, UNLOCKED, holder)
        if found == UNLOCKED:
            return UNLOCKED
    return found


@compiled
def take_over(word, dead, holder):
    """Hold the lock in place of one that is dead; whether that came about."""
    return compare_and_swap(word, dead, holder) == dead


@compiled
def unlock(word):
    store_release(word, UNLOCKED)
