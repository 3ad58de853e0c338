"""Frames out, once a turn: control frames, bare ACKs, then data; delayed ACKs are put off. The only writer of frames."""

from mpserve.dataplane.frames import flush, send_control
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import conn_at, core_at, counters_at, delayed_get, output_get, output_put, tcb_at
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.state import CLOSED, TIME_WAIT
from mpserve.dataplane.tcp.transmit import output, owes_only_ack
from mpserve.dataplane.wheel import arm


@unit("egress")
def egress(core_address, now):
    """Build all frames that are owed and may be sent, and hand them to the device."""
    core = core_at(core_address)
    _send_controls(core)
    _send_outputs(core, now)
    _put_off_acks(core, now)
    _send_controls(core)  # ARP requests that the outputs asked for
    flush(core)
    return 0


@compiled
def _send_controls(core):
    """Control frames that find no mbuf, or no room before the device, are dropped: a peer asks again."""
    for i in range(core.control_count):
        if not send_control(core, i):
            counters_at(core.counters).drop_control_unsent += 1
    core.control_count = 0


@compiled
def _send_outputs(core, now):
    """Connections that owe nothing but an ACK come first: where frames run short, the peers' windows still move."""
    _send_some(core, now, True)
    if core.output_count > 0:
        _send_some(core, now, False)


@compiled
def _send_some(core, now, acks_only):
    """What can't be sent now, or is left for the second pass, stays listed."""
    listed, kept = core.output_count, 0
    for i in range(listed):
        slot = output_get(core, i)
        tcb = tcb_at(core, slot)
        if tcb.state == CLOSED or tcb.state == TIME_WAIT:
            tcb.flags &= ~flags.IN_OUTPUTS
            continue
        if not acks_only or owes_only_ack(tcb):
            tcb.flags &= ~flags.IN_OUTPUTS
            if output(core, tcb, conn_at(core, slot), now):
                continue
            tcb.flags |= flags.IN_OUTPUTS
        output_put(core, kept, slot)
        kept += 1
    core.output_count = kept


@compiled
def _put_off_acks(core, now):
    """ACKs that no segment of this turn carried get a deadline, which later data doesn't move."""
    for i in range(core.delayed_count):
        slot = delayed_get(core, i)
        tcb = tcb_at(core, slot)
        tcb.flags &= ~flags.IN_DELAYED
        if tcb.flags & (flags.ACK_DELAYED | flags.ACK_PUT_OFF) == flags.ACK_DELAYED and tcb.state != CLOSED:
            tcb.flags |= flags.ACK_PUT_OFF
            conn = conn_at(core, slot)
            conn.delack_at = now + core.delack_us
            arm(core, slot, conn.delack_at)
    core.delayed_count = 0
