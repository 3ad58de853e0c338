"""The generator's poll loop: a turn of the stack, what the clients do about it, what is due."""

from mpserve.apps.load.clients import begin_due, open_more, take_events
from mpserve.apps.load.records import load_at
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import core_at
from mpserve.dataplane.turn import gather, read_clock, respond


@unit("load")
def run_load(load_address, until):
    """Poll until the TSC reaches `until`; the requests so far. The cycles of turns with something to do are the busy ones."""
    load = load_at(load_address)
    core = core_at(load.core)
    read_clock(core)
    begun = core.tsc
    while core.tsc < until:
        started = core.tsc
        work = _turn(load, core)
        read_clock(core)
        load.turns += 1
        if work > 0:
            load.busy_turns += 1
            load.busy_cycles += core.tsc - started
    load.cycles += core.tsc - begun
    return load.requests


@unit("load_turn")
def turn_load(load_address, commands):
    """Execute the batch's commands, then one turn; how much there was to do. Whoever has no TSC sets the time."""
    load = load_at(load_address)
    core = core_at(load.core)
    read_clock(core)
    return respond(core, load.core, commands) + _turn(load, core)


@compiled
def _turn(load, core):
    work = gather(core, load.core)
    work += take_events(load, core) + begin_due(load, core) + open_more(load, core)
    return work + respond(core, load.core, 0)
