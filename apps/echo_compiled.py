"""Echo as a compiled handler: every batch of events becomes a batch of commands with no interpreter on the path.

A core runs it when `core.handler` is the unit's address.
"""

from mpserve.dataplane.events import (
    EOF,
    OP_BITS,
    READ,
    Command,
    event_a,
    event_b,
    event_handle,
    event_kind,
    put_command,
)
from mpserve.dataplane.jit import unit
from mpserve.dataplane.layout import core_at

WRITE, CLOSE = int(Command.WRITE), int(Command.CLOSE)


@unit("echo")
def echo(core_address, state_address):
    """Write back what was read, straight from the arena; close when the peer has. One command an event always fits."""
    core = core_at(core_address)
    for i in range(core.event_count):
        kind = event_kind(core, i)
        if kind == READ:
            start, end = event_a(core, i), event_b(core, i)
            put_command(core, WRITE | (event_handle(core, i) << OP_BITS), core.arena + start, end - start)
        elif kind == EOF:
            put_command(core, CLOSE | (event_handle(core, i) << OP_BITS), core.arena, 0)
    return core.command_count
