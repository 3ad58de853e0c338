"""The retransmission timer: one deadline, for the RTO, a tail loss probe, or the end of RACK's reordering window."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import NEVER
from mpserve.dataplane.tcp.rack import may_probe_tail, probe_timeout
from mpserve.dataplane.wheel import arm

RTO, TAIL_LOSS, REORDERING = 0, 1, 2


@compiled
def stop_timer(tcb):
    """RFC 6298 (5.2)."""
    tcb.rexmit_at = NEVER
    tcb.rexmit_kind = RTO


@compiled
def start_timer(core, tcb, now):
    """RFC 6298 (5.1) and (5.3), or RFC 8985 section 7.2 where a probe may come before the RTO."""
    wait = tcb.rto_us
    tcb.rexmit_kind = RTO
    if tcb.snd_una != tcb.snd_nxt and may_probe_tail(tcb):
        wait = probe_timeout(tcb)
        if wait < tcb.rto_us:
            tcb.rexmit_kind = TAIL_LOSS
    tcb.rexmit_at = now + wait
    arm(core, tcb.slot, tcb.rexmit_at)


@compiled
def suspect_until(core, tcb, wait, now):
    """Look again after `wait` for what is suspected to be lost (RFC 8985 section 6.3); 0: the RTO is waited for."""
    if wait > 0:
        tcb.rexmit_kind = REORDERING
        tcb.rexmit_at = now + wait
    elif tcb.rexmit_kind == REORDERING or tcb.rexmit_at == NEVER or not may_probe_tail(tcb):
        if tcb.rexmit_kind != RTO or tcb.rexmit_at == NEVER:
            tcb.rexmit_at = now + tcb.rto_us if tcb.snd_una != tcb.snd_nxt else NEVER
        tcb.rexmit_kind = RTO
    arm(core, tcb.slot, tcb.rexmit_at)
