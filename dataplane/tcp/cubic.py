"""CUBIC, RFC 9438: how the congestion window grows in congestion avoidance, and what a loss leaves of it.

Windows are in segments here, times in seconds, as in the RFC.
"""

from mpserve.dataplane.jit import compiled

C = 0.4
BETA = 0.7
ALPHA = 3 * (1 - BETA) / (1 + BETA)
_MOST_GROWTH = 1.5  # of the window, in one round trip


@compiled
def cubic_window(core, tcb, conn, acked):
    """The window, in bytes, after an ACK of `acked` bytes in congestion avoidance (sections 4.2 to 4.5)."""
    cwnd = tcb.cwnd / tcb.mss
    segments = acked / tcb.mss
    if conn.epoch_at == 0:
        _begin_epoch(core, conn, cwnd)
    elapsed = (core.now - conn.epoch_at) / 1e6
    conn.w_est += (1.0 if conn.w_est >= conn.w_prior else ALPHA) * segments / cwnd
    if _w_cubic(conn, elapsed) < conn.w_est:
        return max(int(conn.w_est * tcb.mss), tcb.cwnd)  # section 4.3: no slower than Reno
    target = min(max(_w_cubic(conn, elapsed + tcb.srtt_us / 1e6), cwnd), _MOST_GROWTH * cwnd)
    return int((cwnd + (target - cwnd) / cwnd * segments) * tcb.mss)


@compiled
def _begin_epoch(core, conn, cwnd):
    conn.epoch_at = core.now
    conn.w_est = cwnd
    if cwnd < conn.w_max:
        conn.k = ((conn.w_max - cwnd) / C) ** (1 / 3)
    else:
        conn.k = 0.0
        conn.w_max = cwnd


@compiled
def _w_cubic(conn, elapsed):
    """Section 4.2, figure 1."""
    return C * (elapsed - conn.k) ** 3 + conn.w_max


@compiled
def cubic_loss(tcb, conn, flight):
    """A loss has been noticed with `flight` bytes out: remember the window (4.7, fast convergence); the new ssthresh (4.6)."""
    cwnd = tcb.cwnd / tcb.mss
    conn.w_prior = cwnd
    conn.w_max = cwnd * (1 + BETA) / 2 if cwnd < conn.w_max else cwnd
    conn.epoch_at = 0
    return max(int(flight * BETA), 2 * tcb.mss)
