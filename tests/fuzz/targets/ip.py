"""Ethernet, ARP, IPv4, fragments and echo, beside an honest connection."""

from fuzz import steps
from fuzz.world import World

STEPS = (
    steps.fragment,
    steps.fragments,
    steps.raw,
    steps.echo,
    steps.arp,
    steps.wait,
    steps.open_passively,
    steps.near_segment,
    steps.honest,
    steps.neighbours_answer,
)


def make() -> World:
    return World(STEPS, blocks=1024, neighbors=4)
