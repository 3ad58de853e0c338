"""`Handler`: what a server does with its connections, as callbacks of one instance a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from mpserve.framework.codec import Codec

if TYPE_CHECKING:
    from mpserve.dataplane.completions import Reason
    from mpserve.framework.lwsocket import LwSocket
    from mpserve.framework.worker import Worker


class Handler:
    """Subclass it and override what you need. Options are annotated class attributes: `limit: int = 10`.

    All callbacks run on the worker's thread, in batches; none may block. An exception aborts the connection that it was
    raised for, is logged with its traceback and counted; in `on_start` it stops the worker.

    If `on_batch(self, items: list[tuple[LwSocket, bytes]])` is defined, it is called once a turn in place of `on_data`;
    an exception in it aborts the connections of that batch.
    """

    scheme: ClassVar[str] = "tcp"  # of the URL that the server prints
    default_port: ClassVar[int] = 7  # where it listens unless told otherwise
    default_workers: ClassVar[int] = 0  # on how many cores at most unless told otherwise; 0: on all
    codec: ClassVar[Codec | None] = (
        None  # parses requests, which `on_data` and `on_batch` get in place of bytes as they come
    )
    is_compiled: ClassVar[bool] = False  # whether the loop calls it without Python

    def __init__(self, **options: Any) -> None:
        """Options by name, each of the type that its annotation asks for. Raises TypeError for one there isn't."""
        for name, value in options.items():
            if not any(name in vars(c).get("__annotations__", {}) for c in type(self).__mro__):
                raise TypeError(f"{type(self).__name__} has no option {name!r}")
            setattr(self, name, value)

    def on_start(self, worker: Worker) -> None:
        """Before the first connection."""

    def on_stop(self) -> None:
        """After the last turn."""

    def on_accept(self, sock: LwSocket) -> None:
        """A connection has been established."""

    def on_connect(self, sock: LwSocket) -> None:
        """A connection asked for by `worker.connect` is established. One that can't be had gets `on_close` alone."""

    def on_data(self, sock: LwSocket, data: bytes) -> None:
        """Bytes have arrived, in order; as many as there were, not as the peer wrote them."""

    def on_eof(self, sock: LwSocket) -> None:
        """The peer will send no more. Closes the connection unless overridden."""
        sock.close()

    def on_writable(self, sock: LwSocket) -> None:
        """What `write` answered False to has drained."""

    def on_timeout(self, sock: LwSocket) -> None:
        """Nothing has arrived for the time given to `set_timeout`. Closes the connection unless overridden."""
        sock.close()

    def on_message(self, source: int, data: bytes) -> None:
        """What `worker.post` of the worker on core `source` has sent."""

    def on_close(self, sock: LwSocket, reason: Reason) -> None:
        """The connection is over; `sock` can't be used any more. Called once for each connection, accepted or asked for."""
