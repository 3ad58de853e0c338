"""What all regular descriptors of a channel have in common: they belong to whoever registered them, until they are closed."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

from mpserve.framework.endpoints import Endpoint

if TYPE_CHECKING:
    from mpserve.framework.channel import Channel


class Descriptor(Endpoint):
    """`thing` is what was registered: an int, or an object with `fileno()`, which closing closes."""

    def __init__(self, channel: Channel, thing: Any) -> None:
        super().__init__(channel)
        self.thing = thing
        self.fd = descriptor_of(thing)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fd}>"

    def check(self) -> int:
        """The descriptor. Raises OSError (EBADF) or ValueError if its object was closed behind the channel's back."""
        if not isinstance(self.thing, int) and self.thing.fileno() != self.fd:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.fd

    def given_back(self) -> Any:
        return self.thing

    def close_descriptor(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # closed by its owner
            self.check()
            if isinstance(self.thing, int):
                os.close(self.fd)
            else:
                self.thing.close()


def descriptor_of(thing: Any) -> int:
    """The descriptor of an int or an object with `fileno()`. Raises TypeError, ValueError or OSError (EBADF)."""
    if isinstance(thing, bool) or not (isinstance(thing, int) or hasattr(thing, "fileno")):
        raise TypeError(
            f"{thing!r} is no endpoint: give a listener, a connection, a descriptor, or what has a fileno()"
        )
    fd = thing if isinstance(thing, int) else thing.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return int(fd)
