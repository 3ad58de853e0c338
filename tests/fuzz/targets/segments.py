"""Segments that nearly fit connections in every state, with room for all; honest clients must be served in full beside them."""

from fuzz import steps
from fuzz.world import World

STEPS = (
    steps.near_segment,
    steps.open_passively,
    steps.command,
    steps.wait,
    steps.near_segment,
    steps.open_actively,
    steps.accept,
    steps.honest,
    steps.blind_segment,
    steps.icmp_error,
    steps.report_loss,
    steps.close_in_order,
    steps.stop_listening,
)


def make() -> World:
    return World(STEPS, blocks=2048, rcvbuf_max_bytes=1 << 18, sndbuf_max_bytes=1 << 18)
