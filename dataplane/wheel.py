"""A timer wheel of 4096 buckets of 1024 us, one entry for each connection and each SYN in the backlog.

An entry holds the earliest of its owner's deadlines. A later deadline doesn't move it: it fires early and is armed
again.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import NEVER, WHEEL_BUCKETS, timer_at, wheel_get, wheel_put

TICK_SHIFT = 10


@compiled
def disarm(core, entry):
    timer = timer_at(core, entry)
    if timer.armed == 0:
        return
    timer.armed = 0
    if timer.prev >= 0:
        timer_at(core, timer.prev).next = timer.next
    else:
        wheel_put(core, timer.bucket, timer.next)
    if timer.next >= 0:
        timer_at(core, timer.next).prev = timer.prev


@compiled
def arm(core, entry, deadline):
    """See to it that the entry fires at `deadline` (us) or before."""
    timer = timer_at(core, entry)
    if deadline >= NEVER:
        return
    if timer.armed == 1:
        if timer.deadline <= deadline:
            return
        disarm(core, entry)
    tick = deadline >> TICK_SHIFT
    if tick <= core.wheel_tick:  # that bucket has been visited: the next one
        tick = core.wheel_tick + 1
    bucket = tick & (WHEEL_BUCKETS - 1)
    head = wheel_get(core, bucket)
    timer.deadline = deadline
    timer.bucket = bucket
    timer.prev = -1
    timer.next = head
    timer.armed = 1
    if head >= 0:
        timer_at(core, head).prev = entry
    wheel_put(core, bucket, entry)


@compiled
def next_deadline(core, horizon):
    """The start of the earliest bucket in use, at most `horizon` (us): how long an idle worker may sleep."""
    for ahead in range(1, WHEEL_BUCKETS + 1):
        at = (core.wheel_tick + ahead) << TICK_SHIFT
        if at >= horizon:
            return horizon
        if wheel_get(core, (core.wheel_tick + ahead) & (WHEEL_BUCKETS - 1)) >= 0:
            return at + (1 << TICK_SHIFT)
    return horizon
