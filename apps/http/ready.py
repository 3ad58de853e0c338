"""Replies kept ready by the exact bytes of the request head.

A reply names the second it was made in (Date), so nothing is kept longer: whoever owns a Ready clears it when the
second is over. That also bounds how long a changed file goes unseen.
"""

LARGEST_HEAD_BYTES = 2048
LARGEST_REPLY_BYTES = 65536 + 1024
ENTRY_OVERHEAD_BYTES = 256


class Ready(dict[bytes, bytes]):
    """Request heads to whole replies, bounded in bytes. What doesn't fit isn't kept: all is gone in a second anyway."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.size = 0

    def put(self, head: bytes, reply: bytes) -> None:
        """Keep a reply, if there is room."""
        weight = len(head) + len(reply) + ENTRY_OVERHEAD_BYTES
        if len(head) > LARGEST_HEAD_BYTES or len(reply) > LARGEST_REPLY_BYTES or self.size + weight > self.limit:
            return
        if head not in self:
            self.size += weight
            self[head] = reply

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self.size = 0
