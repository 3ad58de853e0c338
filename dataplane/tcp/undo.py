"""Going back to the window before a recovery that was in vain: all that was sent again had arrived (RFC 2883, RFC 9438 4.9).

The receiver's D-SACKs tell. `undo_bytes` is what is sent again and not reported; at 0, segments were only late.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.seq import before, diff


@compiled
def remember_window(tcb, conn):
    """A recovery begins."""
    conn.undo_cwnd, conn.undo_ssthresh = tcb.cwnd, tcb.ssthresh
    conn.undo_w_max = conn.w_max
    conn.undo_from = tcb.snd_una
    conn.undo_bytes = 0


@compiled
def forget_window(conn):
    """After a timeout there is nothing to go back to."""
    conn.undo_cwnd = 0


@compiled
def duplicate_reported(tcb, conn, start, end):
    """A D-SACK of [start, end)."""
    if conn.undo_cwnd == 0 or conn.undo_bytes <= 0 or before(start, conn.undo_from):
        return
    conn.undo_bytes -= diff(end, start)
    if conn.undo_bytes <= 0:
        tcb.cwnd = max(tcb.cwnd, conn.undo_cwnd)
        tcb.ssthresh = max(tcb.ssthresh, conn.undo_ssthresh)
        conn.w_max = conn.undo_w_max
        conn.epoch_at = 0
        conn.undo_cwnd = 0
        tcb.flags &= ~(flags.IN_RECOVERY | flags.RETRANSMIT)
