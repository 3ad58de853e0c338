"""Timestamps, RFC 7323: the clock that our segments carry, what is echoed, and PAWS."""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import control_at
from mpserve.dataplane.memory import mix
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.seq import after, before

_TICK_SHIFT = 10  # a tick is 1024 us
_PAWS_IDLE_US = 24 * 24 * 3600 * 1_000_000  # RFC 7323 section 5.5: what was seen longer ago proves nothing


@compiled
def timestamp(core, key):
    """The value of our clock for a connection."""
    return timestamp_at(core, key, core.now)


@compiled
def timestamp_at(core, key, at):
    """What the clock showed, or will, at a time (us): it starts where a keyed hash says, so that it tells nothing of the host.

    The flow table's hash is hidden by other secrets: a peer that knew it could aim at one bucket.
    """
    offset = mix(np.int64(key.hash) ^ core.clock_secret_a, core.clock_secret_b)
    return ((at >> _TICK_SHIFT) + (offset & 0xFFFFFFFF)) & 0xFFFFFFFF


@compiled
def stamp_control(core, key, ts_recent):
    """Have the control segment that was listed last carry timestamps."""
    control = control_at(core, core.control_count - 1)
    control.ts_ok = 1
    control.ts_val = timestamp(core, key)
    control.ts_ecr = ts_recent


@compiled
def sent_before_echo(core, tcb, conn, seg, sent_at):
    """Whether the peer has seen something sent at `sent_at` or later, as far as timestamps tell."""
    if tcb.flags & flags.TIMESTAMPS == 0 or seg.ts_ok == 0:
        return True
    return not before(seg.ts_ecr, timestamp_at(core, conn, sent_at))


@compiled
def is_too_old(core, tcb, conn, seg):
    """RFC 7323 section 5.3, R1: older than the last one echoed."""
    return before(seg.ts_val, tcb.ts_recent) and core.now - conn.ts_recent_at < _PAWS_IDLE_US


@compiled
def remember_timestamp(core, tcb, conn, seg):
    """RFC 7323 section 4.3: echo the timestamp of the segment that the next ACK answers."""
    if tcb.flags & flags.TIMESTAMPS and seg.ts_ok != 0:
        if seg.ts_val != tcb.ts_recent and not before(seg.ts_val, tcb.ts_recent) and not after(seg.seq, tcb.rcv_acked):
            tcb.ts_recent = seg.ts_val
            conn.ts_recent_at = core.now
