"""One direction of a faulty wire: its record, its random numbers, the frames that it holds by the time they are due."""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import mix, record_at, set_native64, table_of

LANE_ROWS = 2048  # frames held if nothing else is said; a power of two
LANE_COUNTERS = (
    "frames passed lost too_long corrupted duplicated not_duplicated reordered queue_full ring_full"
).split()
LANE = np.dtype(
    [
        (name, "i8")
        for name in (
            # frames held: a ring of HELD, in the order of their release
            "held rows head count fault "
            # settings: shares are thresholds of 32 random bits, times are nanoseconds or say so
            "key lose recover corrupt duplicate reorder hold_ns delay_ns jitter_us rate queue_ns longest copies "
            # state
            "in_burst link_free link_remainder"
        ).split()
        + LANE_COUNTERS
    ]
)
HELD = np.dtype([("mbuf", "i8"), ("release", "i8")])  # release: nanoseconds on the core's clock

lane_at = record_at(LANE)
held_at = table_of(LANE, HELD, "held", "rows")

# What a random number is for. The second copy of a frame has a REORDER and a JITTER of its own, COPY further.
LOSS, CORRUPT, BIT, DUPLICATE, REORDER, JITTER, COPY, PURPOSES = 0, 1, 2, 3, 4, 5, 2, 8
_ODD_A, _ODD_B = 0x1D8E4E27C47D124F, 0x2545F4914F6CDD1D


@compiled
def draw(lane, purpose):
    """32 random bits that depend on the lane's key, the number of the frame and the purpose, and on nothing else: which
    frames are lost does not change with what else is wrong."""
    place = lane.frames * PURPOSES + purpose
    return mix(mix(place ^ _ODD_A, lane.key), _ODD_B) & 0xFFFFFFFF


@compiled
def happens(lane, purpose, threshold):
    return draw(lane, purpose) < threshold


@compiled
def is_lost(lane):
    """Gilbert's two states: in the bad one every frame is lost."""
    if lane.in_burst != 0:
        if happens(lane, LOSS, lane.recover):
            lane.in_burst = 0
    elif happens(lane, LOSS, lane.lose):
        lane.in_burst = 1
    return lane.in_burst != 0


@compiled
def cross_link(lane, now, length):
    """When the last bit of a frame has left the link of lane.rate bit/s (ns); -1 if it would have waited too long."""
    if lane.rate == 0:
        return now
    if lane.link_free < now:
        lane.link_free = now
        lane.link_remainder = 0
    if lane.link_free - now > lane.queue_ns:
        return -1
    share = 8 * length * 1_000_000_000 + lane.link_remainder
    lane.link_free += share // lane.rate
    lane.link_remainder = share % lane.rate
    return lane.link_free


@compiled
def path_ns(lane, copy):
    """How long a frame travels behind the link; `copy` is 0, or COPY for a duplicate."""
    delay = lane.delay_ns
    if lane.jitter_us > 0:
        spread = (draw(lane, JITTER + copy) * (2 * lane.jitter_us + 1)) >> 32
        delay += 1000 * (spread - lane.jitter_us)
    if happens(lane, REORDER + copy, lane.reorder):
        lane.reordered += 1
        delay += lane.hold_ns
    return delay


@compiled
def _row(lane, place):
    return held_at(lane, (lane.head + place) & (lane.rows - 1))


@compiled
def hold(lane, mbuf, release):
    """Put a frame behind those that are due before or with it. There is room."""
    place = lane.count
    lane.count += 1
    while place > 0 and _row(lane, place - 1).release > release:
        later = _row(lane, place - 1)
        row = _row(lane, place)
        row.mbuf = later.mbuf
        row.release = later.release
        place -= 1
    row = _row(lane, place)
    row.mbuf = mbuf
    row.release = release


@compiled
def list_due(lane, now, pkts, most):
    """Write the mbufs that are due by now (ns) at `pkts`, at most so many; how many. They stay held."""
    count = 0
    while count < most and count < lane.count and _row(lane, count).release <= now:
        set_native64(pkts + 8 * count, _row(lane, count).mbuf)
        count += 1
    return count


@compiled
def let_go(lane, count):
    """The first `count` frames are held no more."""
    lane.head = (lane.head + count) & (lane.rows - 1)
    lane.count -= count
