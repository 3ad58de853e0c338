"""The retransmission timer's value, RFC 6298 section 2; one segment is timed at a time, by Karn's rule."""

from mpserve.dataplane.jit import compiled

CLOCK_GRANULARITY_US = 1000


@compiled
def sample_rtt(core, tcb, rtt_us):
    """Take a round-trip time into srtt and rttvar, and set the RTO from them.

    The RTO's floor is 200 ms, as in Linux, where RFC 6298 (2.4) asks for one second.
    """
    rtt_us = min(max(rtt_us, 1), 60_000_000)
    if tcb.srtt_us == 0:
        tcb.srtt_us = rtt_us
        tcb.rttvar_us = rtt_us // 2
    else:
        tcb.rttvar_us = (3 * tcb.rttvar_us + abs(tcb.srtt_us - rtt_us)) // 4
        tcb.srtt_us = (7 * tcb.srtt_us + rtt_us) // 8
    reset_rto(core, tcb)


@compiled
def reset_rto(core, tcb):
    """The RTO that the last round-trip times give, without what was added by backing off."""
    if tcb.srtt_us > 0:
        rto = tcb.srtt_us + max(CLOCK_GRANULARITY_US, 4 * tcb.rttvar_us)
        tcb.rto_us = min(max(rto, core.rto_min_us), core.rto_max_us)


@compiled
def back_off(core, tcb):
    """RFC 6298 (5.5): double the timer."""
    tcb.rto_us = min(2 * tcb.rto_us, core.rto_max_us)
