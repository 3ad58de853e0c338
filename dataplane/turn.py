"""The poll loop. One turn: execute the last batch's commands, take frames in, fire timers, give events, send frames."""

from mpserve.dataplane.completions import IDLE as IDLE
from mpserve.dataplane.delivery import deliver
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import ARENA_BYTES, BURST, CONTROL_ROWS, core_at, counters_at
from mpserve.dataplane.memory import call0, call2, call4
from mpserve.dataplane.sharing import PYTHON, give_back, take
from mpserve.dataplane.steering import may_sleep
from mpserve.dataplane.tcp.backlog import complete_waiting_accepts
from mpserve.dataplane.tcp.connection import recycle_released
from mpserve.dataplane.wheel import TICK_SHIFT, next_deadline

LONGEST_SLEEP_US = 1_000_000
MOST_BURSTS = 64  # of frames a turn, so that a flood of them can't keep timers and egress waiting
ARENA_ROOM = 1 << 18  # what a burst is sure to find; more than that goes to blocks


@unit("turn")
def turn(core_address, command_count):
    """Execute `command_count` commands; then turn until there is something to return for.

    That is a batch of events (returns their number), the time core.return_at (0), or that nothing has happened for
    core.idle_spin_us (IDLE). With a compiled handler, events never come out.
    """
    core = core_at(core_address)
    take(core, PYTHON)
    core.away_since = 0
    result = run(core, core_address, command_count)
    core.away_since = core.now if result != IDLE else 0
    give_back(core)
    return result


@unit("execute")
def execute(core_address, command_count, flush):
    """Execute commands between two turns; where `flush` is not 0, what they owe leaves at once."""
    core = core_at(core_address)
    take(core, PYTHON)
    call2(core.unit_commands, core_address, command_count)
    if flush != 0:
        call2(core.unit_egress, core_address, core.now)
    give_back(core)
    return command_count


@unit("doze")
def doze(core_address, unused):
    """Before a sleep, in a group: whether nothing came from other cores. From then on whoever sends something wakes us."""
    return may_sleep(core_at(core_address))


@compiled
def run(core, core_address, command_count):
    """`turn`, by the core's owner."""
    read_clock(core)
    if core.idle_since == 0:  # woken: look about for a while
        core.idle_since = core.now
    respond(core, core_address, command_count)
    if core.busy_since != 0:
        read_clock(core)
        counters_at(core.counters).busy_cycles += core.tsc - core.busy_since
        core.busy_since = 0
    while True:
        started = core.tsc
        work = gather(core, core_address)
        if core.event_count > 0:
            counters_at(core.counters).events += core.event_count
            if core.handler == 0:
                core.busy_since = started
                core.idle_since = core.now
                return core.event_count
            call2(core.handler, core_address, core.handler_state)
        read_clock(core)
        work += respond(core, core_address, core.command_count)
        read_clock(core)
        if work > 0:
            core.idle_since = core.now
            counters_at(core.counters).busy_turns += 1
            counters_at(core.counters).busy_cycles += core.tsc - started
        elif core.now - core.idle_since >= core.idle_spin_us:
            core.sleep_until = next_deadline(core, core.now + LONGEST_SLEEP_US)
            return IDLE
        if core.now >= core.return_at and core.event_count == 0:
            return 0


@compiled
def read_clock(core):
    """core.now (us) from the TSC; without one (read_tsc = 0) the host sets it."""
    if core.read_tsc != 0:
        core.tsc = call0(core.read_tsc)
        core.now = tsc_to_us(core, core.tsc)


@compiled
def tsc_to_us(core, tsc):
    elapsed = tsc - core.tsc_start
    return (elapsed >> 32) * core.tsc_scale + (((elapsed & 0xFFFFFFFF) * core.tsc_scale) >> 32)


@compiled
def respond(core, core_address, command_count):
    """The batch that was given is over: its commands, then egress; how much there was to do."""
    core.event_count = 0
    core.arena_used = 0
    recycle_released(core)
    work = command_count + core.output_count + core.control_count + core.delayed_count + core.tx_count
    if command_count > 0:
        call2(core.unit_commands, core_address, command_count)
    if work > 0:
        call2(core.unit_egress, core_address, core.now)
    return work


@compiled
def _take_burst(core, core_address, turn):
    """Frames from the device, and in every second turn from other cores, if there are any; how many."""
    if core.switchboard != 0 and turn == 1:
        return call2(core.unit_ingress, core_address, 0)
    count = call4(core.rx, core.port, core.queue, core.rx_pkts, min(BURST, core.event_batch))
    return call2(core.unit_ingress, core_address, count) if count > 0 else 0


@compiled
def gather(core, core_address):
    """A batch of events: frames until the device is dry or the batch full, then timers; how much happened."""
    counters_at(core.counters).turns += 1
    work = 0
    if core.accepts_waiting != 0:
        complete_waiting_accepts(core)
    empty = 0
    for i in range(MOST_BURSTS):
        count = _take_burst(core, core_address, i & 1)
        if count == 0:
            empty += 1
            if empty == 2 or core.switchboard == 0:
                break
            continue
        empty = 0
        work += count
        if core.event_count >= core.event_batch or core.control_count > CONTROL_ROWS - 2 * BURST:
            break
        if core.arena_used > ARENA_BYTES - ARENA_ROOM:
            break
    if (core.now >> TICK_SHIFT) - 1 > core.wheel_tick:
        work += call2(core.unit_timers, core_address, core.now)
    if core.notify_count > 0:
        deliver(core)
    return work + core.event_count
