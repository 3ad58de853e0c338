"""Turns while Python is away: a callback that runs long must not stop TCP.

A second thread of the worker is in `standby`, compiled code that needs no interpreter. When the Python thread has been away
for a while it takes the core (`owner`) for one turn at a time, without delivery: what arrives is acknowledged and kept, timers
fire, what is owed leaves, and the events wait for Python. So a peer's window closes at last, and nothing is lost.
"""

from mpserve.dataplane.atomics import load_acquire
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import CORE, EVENT_ROWS, core_at, counters_at
from mpserve.dataplane.memory import call0, call1, call2
from mpserve.dataplane.sharing import STANDBY, give_back, take_if_free
from mpserve.dataplane.turn import gather, read_clock, tsc_to_us

AWAY_US = 2000
_NAP_US = 1000  # between looks while Python is away ...
_LONG_NAP_US = 10_000  # ... and while it was in the loop or asleep at the last one
_TURN_NAP_US = 250  # between two turns of the standby
_AWAY_SINCE, _STOP = CORE.fields["away_since"][1], CORE.fields["standby_stop"][1]  # type: ignore[index]


@unit("standby")
def standby(core_address):
    """Look after the core until `standby_stop` is set; how many turns were run."""
    core = core_at(core_address)
    turns = 0
    while load_acquire(core_address + _STOP) == 0:
        since = load_acquire(core_address + _AWAY_SINCE)
        if since == 0:
            call1(core.usleep, _LONG_NAP_US)
        elif tsc_to_us(core, call0(core.read_tsc)) - since < AWAY_US:
            call1(core.usleep, _NAP_US)
        else:
            turns += _turn_if_free(core, core_address)
            call1(core.usleep, _TURN_NAP_US)
    return turns


@unit("standby_turn")
def standby_turn(core_address):
    """One turn in Python's absence; 0 if the core is not free."""
    return _turn_if_free(core_at(core_address), core_address)


@compiled
def _turn_if_free(core, core_address):
    if not take_if_free(core, STANDBY):
        return 0
    waiting = core.event_count
    core.event_count = EVENT_ROWS  # no room, so that nothing is delivered
    read_clock(core)
    gather(core, core_address)
    if core.output_count + core.control_count + core.delayed_count + core.tx_count > 0:
        call2(core.unit_egress, core_address, core.now)
    core.event_count = waiting
    counters_at(core.counters).standby_turns += 1
    give_back(core)
    return 1
