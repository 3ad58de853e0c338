"""The end of a listener: what waits for it is forgotten or reset, so that its number can serve another."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import LISTENERS, conn_at, counters_at, listener_at, syn_at, tcb_at
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.backlog import forget_syn
from mpserve.dataplane.tcp.connection import ABORTED, abort, release
from mpserve.dataplane.tcp.state import CLOSED


@compiled
def stop_listening(core, number):
    """Handshakes begun for a listener are forgotten, connections that nobody has accepted are reset (as on Linux)."""
    if number < 0 or number >= LISTENERS or listener_at(core, number).used == 0:
        counters_at(core.counters).stale_commands += 1
        return
    listener = listener_at(core, number)
    listener.used = 0
    listener.accepts = 0
    listener.queued = 0
    listener.max_segment = 0
    listener.defer_ms = 0
    for index in range(core.syn_count):
        if syn_at(core, index).used == 1 and syn_at(core, index).listener == number:
            forget_syn(core, index)
    for slot in range(core.connections):
        if tcb_at(core, slot).flags & flags.UNACCEPTED and conn_at(core, slot).listener == number:
            _drop(core, tcb_at(core, slot), conn_at(core, slot))


@compiled
def _drop(core, tcb, conn):
    """End a connection of which the channel has never heard, and will not."""
    if tcb.state != CLOSED:
        abort(core, tcb, conn, ABORTED)
    if tcb.flags & flags.UNACCEPTED:  # one that waited for data has been released already
        release(core, tcb)
