"""ICMP errors about connections of all kinds, with data in flight, and path MTU discovery."""

from fuzz import steps
from fuzz.script import Arguments
from fuzz.stack import FuzzStack
from fuzz.world import World

STEPS = (
    steps.icmp_error,
    steps.near_segment,
    steps.command,
    steps.wait,
    steps.honest,
    steps.open_passively,
    steps.open_actively,
    steps.fragments,
    steps.report_loss,
)


def begin(stack: FuzzStack) -> None:
    """A connection with data in flight, one that is being opened, an honest one."""
    steps.honest(stack, Arguments(b""))
    steps.open_passively(stack, Arguments(bytes((0, 3))))
    steps.command(stack, Arguments(bytes((0, 0, 0, 6))))
    steps.open_actively(stack, Arguments(b""))


def make() -> World:
    return World(STEPS, begin, blocks=1024)
