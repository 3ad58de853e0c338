"""Frames owed that belong to no TCB: RST, SYN-ACK, ACK of a TIME_WAIT, ARP, echo replies. Input lists them, egress builds them."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import CONTROL_ROWS, NO_BLOCK, control_at, counters_at
from mpserve.dataplane.wire.ipv4 import TTL

SEGMENT, ARP_REQUEST, ARP_REPLY, ECHO_REPLY = 0, 1, 2, 3


@compiled
def control_room(core):
    """Whether a control frame can be listed; otherwise counts the drop."""
    if core.control_count < CONTROL_ROWS:
        return True
    counters_at(core.counters).drop_control_full += 1
    return False


@compiled
def owe_control(core, kind, remote, local, mac):
    """List a control frame and return its record to fill in. `control_room` was asked before."""
    control = control_at(core, core.control_count)
    core.control_count += 1
    control.kind = kind
    control.remote_high = 0
    control.local_high = 0
    control.remote = remote
    control.local = local
    control.tos = 0
    control.ttl = TTL
    control.mac = mac
    control.block = NO_BLOCK
    control.length = 0
    control.mss = 0
    control.scale = -1
    control.sack_ok = 0
    control.ts_ok = 0
    return control


@compiled
def owe_segment(core, key, mac, seq, ack, flags, wnd):
    """List a TCP segment without payload to the peer of `key`; False if there is no room."""
    if not control_room(core):
        return False
    control = owe_control(core, SEGMENT, key.remote, key.local, mac)
    control.ports = key.ports
    control.seq = seq
    control.ack = ack
    control.flags = flags
    control.wnd = wnd
    return True


@compiled
def carry_ip_fields(core, holder):
    """Have the control frame that was listed last carry the Diffserv field and TTL of a connection or listener."""
    control = control_at(core, core.control_count - 1)
    control.tos = holder.tos
    if holder.ttl > 0:
        control.ttl = holder.ttl
