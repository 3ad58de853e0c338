"""The timer wheel against a sorted list: no deadline is missed, none fires early but the lazy ones."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mpserve.dataplane.core import make_core
from mpserve.dataplane.jit import JIT, unit
from mpserve.dataplane.layout import WHEEL_BUCKETS, core_at, timer_at, wheel_get
from mpserve.dataplane.limits import Limits
from mpserve.dataplane.wheel import arm, disarm, next_deadline

ENTRIES = 8
TURN_US = WHEEL_BUCKETS << 10


@unit("wheel_arm")
def wheel_arm(core_address, entry, deadline):
    """`arm` by address, for tests."""
    arm(core_at(core_address), entry, deadline)
    return 0


@unit("wheel_disarm")
def wheel_disarm(core_address, entry):
    """`disarm` by address, for tests."""
    disarm(core_at(core_address), entry)
    return 0


@unit("wheel_next")
def wheel_next(core_address, horizon):
    """`next_deadline` by address, for tests."""
    return next_deadline(core_at(core_address), horizon)


@unit("wheel_fire")
def wheel_fire(core_address, now):
    """Move the wheel to `now`; the entries that fire, as bits. The walk of `timers`, without what it calls."""
    core = core_at(core_address)
    fired = 0
    last = (now >> 10) - 1
    while core.wheel_tick < last:
        core.wheel_tick += 1
        entry = wheel_get(core, core.wheel_tick & (WHEEL_BUCKETS - 1))
        while entry >= 0:
            timer = timer_at(core, entry)
            following = timer.next
            if timer.deadline <= now:
                disarm(core, entry)
                fired |= 1 << entry
            entry = following
    return fired


def wheel():
    core = make_core(Limits(max_connections=ENTRIES, syn_backlog=1, blocks=16), mac=bytes(6), ip="10.9.0.2", seed=1)
    return core


delays = st.one_of(st.integers(0, 5000), st.integers(0, 3 * TURN_US if JIT else TURN_US // 16))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, ENTRIES - 1), delays),
        st.tuples(st.just("disarm"), st.integers(0, ENTRIES - 1), st.just(0)),
        st.tuples(st.just("pass"), st.just(0), delays),
    ),
    max_size=40,
)


@settings(max_examples=200 if JIT else 30, deadline=None)
@given(steps)
def test_like_a_sorted_list(steps):
    core = wheel()
    now = int(core.record.now)
    armed: dict[int, int] = {}
    for what, entry, delay in steps:
        if what == "arm":
            wheel_arm(core.address, entry, now + delay)
            armed[entry] = min(armed.get(entry, now + delay), now + delay)
        elif what == "disarm":
            wheel_disarm(core.address, entry)
            armed.pop(entry, None)
        else:
            horizon = now + 10 * TURN_US
            if armed and min(armed.values()) < now + TURN_US - 4096:
                assert wheel_next(core.address, horizon) <= max(min(armed.values()), now) + 3 * 1024
            now += delay
            fired = int(wheel_fire(core.address, now))
            due = {e for e, deadline in armed.items() if deadline <= now - 2048}
            got = {e for e in range(ENTRIES) if fired >> e & 1}
            assert due <= got <= {e for e, deadline in armed.items() if deadline <= now}
            for e in got:
                del armed[e]
        assert int(core.arrays["timers"].armed.sum()) == len(armed)
    for entry in list(armed):
        wheel_disarm(core.address, entry)
    assert (core.arrays["wheel"].value == -1).all()
    core.close()


def test_an_empty_wheel_sleeps_to_the_horizon():
    core = wheel()
    now = int(core.record.now)
    assert wheel_next(core.address, now + 5000) == now + 5000
    wheel_arm(core.address, 0, now + 3000)
    assert now + 3000 <= wheel_next(core.address, now + 50_000) <= now + 3000 + 2048
    wheel_disarm(core.address, 0)
    assert np.count_nonzero(core.arrays["timers"].armed) == 0
    core.close()
