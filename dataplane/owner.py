"""Who may run turns on a Core: its owner word, taken by compare-and-swap and given back with release.

The Python thread owns the core while it is in `turn`; between turns the word is free, so that a standby thread of the
same worker can take it while a callback runs long.
"""

from mpserve.dataplane.atomics import compare_and_swap, store_release
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import CORE
from mpserve.dataplane.memory import address_of

FREE, PYTHON, STANDBY = 0, 1, 2
_OWNER = CORE.fields["owner"][1]  # type: ignore[index]


@compiled
def take(core, who):
    """Wait until the core is free, and own it. A standby gives it back between two turns."""
    while compare_and_swap(address_of(core) + _OWNER, FREE, who) != FREE:
        pass


@compiled
def take_if_free(core, who):
    """Own the core if nobody does; whether that came about."""
    return compare_and_swap(address_of(core) + _OWNER, FREE, who) == FREE


@compiled
def give_back(core):
    store_release(address_of(core) + _OWNER, FREE)
