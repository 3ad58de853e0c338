"""TCP options: in SYNs, where what is kept of them is compared, and in the segments of connections with data in flight."""

from fuzz import steps
from fuzz.script import Arguments
from fuzz.stack import FuzzStack
from fuzz.world import World

STEPS = (
    steps.syn_with_options,
    steps.near_segment,
    steps.command,
    steps.wait,
    steps.open_passively,
    steps.honest,
    steps.report_loss,
)


def begin(stack: FuzzStack) -> None:
    """Three connections: with timestamps and SACK, with SACK, with neither; each has something in flight."""
    for peer, offer in ((0, 3), (1, 2), (2, 1)):
        steps.open_passively(stack, Arguments(bytes((peer, offer))))
        steps.command(stack, Arguments(bytes((0, 0, 0, 6))))


def make() -> World:
    return World(STEPS, begin, blocks=2048, rcvbuf_max_bytes=1 << 18, sndbuf_max_bytes=1 << 18)
