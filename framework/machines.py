"""Which machine stands behind a device: the stack, or what the device brings itself."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpserve.framework.machine import Machine


def maker_of(device: Any) -> Callable[..., Machine]:
    """What makes the machine behind a device: its own, if it has one, else the stack's, which is loaded only then."""
    own: Callable[..., Machine] | None = getattr(device, "make_machine", None)
    if own is not None:
        return own
    from mpserve.framework.machine import Machine

    return functools.partial(Machine, device)
