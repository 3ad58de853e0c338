"""Challenge ACKs, RFC 5961: who really sent a doubtful segment will say so once more. So many a second, on all connections."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import counters_at

CHALLENGES_A_SECOND = 1000


@compiled
def may_challenge(core):
    """Whether another challenge ACK may leave in this second; counts it, or that it was held back (RFC 5961 section 7)."""
    second = core.now >> 20  # 1.05 s
    if core.challenge_second != second:
        core.challenge_second = second
        core.challenges = 0
    if core.challenges >= CHALLENGES_A_SECOND:
        counters_at(core.counters).challenge_acks_held += 1
        return False
    core.challenges += 1
    counters_at(core.counters).challenge_acks += 1
    return True
