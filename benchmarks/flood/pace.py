"""When a client that rests may go on: so many a second, in the order in which they came to rest."""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import native64, record_at, set_native64

NEVER = 1 << 62
MOST_LATE = 8  # turns that are made up for after the loop was held up; what is more is left out

PACE = np.dtype([(n, "i8") for n in "interval next_at ring rows head count".split()])
pace_at = record_at(PACE)


@compiled
def rest(pace, client):
    """Put a client (its address) at the end of the line."""
    if pace.count < pace.rows:
        set_native64(pace.ring + 8 * ((pace.head + pace.count) % pace.rows), client)
        pace.count += 1


@compiled
def next_due(pace, now):
    """The client whose turn it is, or 0. Times are cycles; an interval of 0 means at once."""
    if pace.count == 0 or now < pace.next_at:
        return 0
    pace.next_at = max(pace.next_at, now - MOST_LATE * pace.interval) + pace.interval
    client = native64(pace.ring + 8 * pace.head)
    pace.head = (pace.head + 1) % pace.rows
    pace.count -= 1
    return client
