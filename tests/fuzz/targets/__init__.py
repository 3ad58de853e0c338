"""The targets: which steps a script is made of, in what surroundings. Steps are numbered: a corpus outlives only additions."""

from __future__ import annotations

import importlib

from fuzz.world import World

NAMES = ("options", "ip", "icmp", "segments", "whole")


def world_of(name: str) -> World:
    """The world of a target; one a process is enough."""
    return importlib.import_module(f"fuzz.targets.{name}").make()
