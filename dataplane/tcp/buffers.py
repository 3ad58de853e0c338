"""Buffers that grow with the flow, as long as half of the pool of blocks is free: no wire needs a setting.

The receive buffer follows what the application takes in a round trip (dynamic right-sizing), the send buffer the
congestion window.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.tcp.seq import diff
from mpserve.dataplane.tcp.settings import OWN_RCVBUF, OWN_SNDBUF

_LEAST_ROUND_US = 1000


@compiled
def _blocks_are_plentiful(core):
    return 2 * core.free_block_count > core.block_count


@compiled
def fit_receive_buffer(core, tcb, conn, now):
    """Where half of it comes in one round trip it doubles, so that the window never holds the peer back."""
    arrived = diff(tcb.rcv_nxt, conn.rcv_round) - conn.rcv_queued
    if 2 * arrived > conn.rcvbuf and conn.settings & OWN_RCVBUF == 0 and _blocks_are_plentiful(core):
        conn.rcvbuf = min(2 * conn.rcvbuf, core.rcvbuf_max)
    if now - conn.rcv_round_at >= max(tcb.srtt_us, _LEAST_ROUND_US):
        conn.rcv_round = tcb.rcv_nxt
        conn.rcv_round_at = now


@compiled
def fit_send_buffer(core, tcb, conn):
    """Room for what is in flight and as much again: for the retransmissions, and for the application to be ahead."""
    if 3 * tcb.cwnd > conn.sndbuf and conn.settings & OWN_SNDBUF == 0 and _blocks_are_plentiful(core):
        conn.sndbuf = min(3 * tcb.cwnd, core.sndbuf_max)
