"""One memcached connection's text protocol: pieces of the byte stream in, replies out. No sockets here, no clock.

Replies are asked for in portions, so that a client that asks for much and reads little costs one portion of memory.
"""

from mpserve.apps.memcached import commands
from mpserve.apps.memcached.commands import ERROR, KEY_BYTES, RETRIEVAL, STORAGE, StorageRequest
from mpserve.apps.memcached.numbers import signed32
from mpserve.apps.memcached.store import Store

PORTION_BYTES = 131072
LINE_BYTES = 2048
GET_LINE_BYTES = 1 << 20
END = b"END\r\n"


class Session:
    """The state of a connection between two pieces of its stream."""

    __slots__ = (
        "store",
        "buffer",
        "at",
        "parts",
        "parts_bytes",
        "missing",
        "request",
        "swallow",
        "keys",
        "with_cas",
        "exptime",
        "hungry",
        "stalled",
        "quit",
    )

    def __init__(self, store: Store) -> None:
        self.store = store
        self.buffer = b""
        self.at = 0
        """How much of the buffer is consumed."""
        self.parts: list[bytes] = []
        """What came after the buffer, until there is enough of it to go on."""
        self.parts_bytes = 0
        self.missing = 0
        """How many more bytes are needed to go on; 0: the end of a line is."""
        self.request: StorageRequest | None = None
        self.swallow = 0
        """Bytes of a refused value still to be thrown away."""
        self.keys: list[bytes] | None = None
        """The keys of a retrieval that are still to be answered, the last one first."""
        self.with_cas = False
        self.exptime: int | None = None
        self.hungry = True
        """Nothing more can be answered before more bytes come."""
        self.stalled = False
        """The peer has to read before more is answered."""
        self.quit = False
        """The connection is to be closed, after what was answered."""

    def feed(self, data: bytes) -> None:
        """Take bytes of the stream."""
        self.store.count.bytes_read += len(data)
        if self.hungry and not self.parts and self.at == len(self.buffer):
            self.buffer, self.at, self.missing, self.hungry = data, 0, 0, False
            return
        self.parts.append(data)
        self.parts_bytes += len(data)
        if self.missing:
            self.missing = max(0, self.missing - len(data))
            if self.missing:
                return
        elif self.hungry and data.find(b"\n") < 0 and not self._too_long(self.parts_bytes):
            return
        self.hungry = False

    def at_once(self, data: bytes, now: float) -> bytes:
        """The reply to `data`, if that is a `get` of one key that hits, and nothing else is going on; otherwise nothing.

        This is most of what a memcached does, so it has a short way of its own."""
        if not self.hungry or self.stalled or self.missing or self.at < len(self.buffer):
            return b""
        if data[:4] != b"get " or data[-2:] != b"\r\n":
            return b""
        self.store.tick(now)
        item = self.store.get(data[4:-2], now)
        if item is None:
            return b""
        count = self.store.count
        count.get_hits += 1
        count.bytes_read += len(data)
        count.bytes_written += len(item.answer) + 5
        return item.answer + END

    def replies(self, now: float) -> bytes:
        """The next portion of replies; more follow until `hungry` or `quit`. Empty if there is nothing to say."""
        if self.parts and not self.hungry:
            self.buffer = self.buffer[self.at :] + b"".join(self.parts)
            self.at = 0
            self.parts.clear()
            self.parts_bytes = 0
        self.store.tick(now)
        out: list[bytes] = []
        size = 0
        while size < PORTION_BYTES and not self.hungry and not self.quit:
            reply = self._step(now)
            if reply:
                out.append(reply)
                size += len(reply)
        self.store.count.bytes_written += size
        return b"".join(out)

    def _step(self, now: float) -> bytes:
        """The next piece of a reply, the next block or the next line."""
        if self.keys is not None:
            return self._next_value(now)
        if self.request is not None:
            return self._block(self.request, now)
        if self.swallow:
            return self._swallow()
        return self._line(now)

    # Lines

    def _line(self, now: float) -> bytes:
        buffer, at = self.buffer, self.at
        end = buffer.find(b"\n", at)
        if end < 0:
            self._starve(0)
            self.quit = self._too_long(0)
            return b""
        self.at = end + 1
        line = buffer[at : end - 1] if buffer[end - 1 : end] == b"\r" and end > at else buffer[at:end]
        if 0 in line:  # memcached reads C strings
            line = line[: line.index(0)]
        words = line.split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        return self._command(words, now) if words and len(words[0]) > 1 else ERROR

    def _too_long(self, more: int) -> bool:
        """Is the unfinished line at the end of the buffer, with `more` bytes to come, too long to be one?"""
        length = len(self.buffer) - self.at + more
        if length <= LINE_BYTES:
            return False
        start = (self.buffer[self.at : self.at + 128] + b"".join(self.parts[:1])[:128]).lstrip(b" ")
        return length > GET_LINE_BYTES or not start.startswith((b"get ", b"gets "))

    def _command(self, words: list[bytes], now: float) -> bytes:
        name = words[0]
        if name in RETRIEVAL:
            return self._retrieve(words, now)
        if name in STORAGE:
            return self._begin_block(words)
        if name == b"quit":
            self.quit = True
            return b""
        return commands.run(self.store, words, now)

    # Retrieval

    def _retrieve(self, words: list[bytes], now: float) -> bytes:
        """get, gets, gat, gats. One key, which is most of them, is answered at once; more of them one a step."""
        name = words[0]
        if len(words) < 2:
            return ERROR
        self.with_cas = name[-1:] == b"s"
        self.exptime = None
        keys = words[1:]
        if name[1:2] == b"a":
            self.exptime = signed32(keys.pop(0))
            if self.exptime is None:
                return commands.BAD_EXPTIME
        if len(keys) == 1 and len(keys[0]) <= KEY_BYTES:
            return self._value(keys[0], now) + END
        if any(len(key) > KEY_BYTES for key in keys):
            return commands.BAD_FORMAT
        self.keys = keys[::-1]
        return b""

    def _next_value(self, now: float) -> bytes:
        if self.keys:
            return self._value(self.keys.pop(), now)
        self.keys = None
        return END

    def _value(self, key: bytes, now: float) -> bytes:
        store = self.store
        if self.exptime is None:
            item = store.get(key, now)
        else:
            item = commands.touch_item(store, key, self.exptime, now)
        if item is None:
            store.count.get_misses += 1
            return b""
        store.count.get_hits += 1
        return item.answer_with_cas() if self.with_cas else item.answer

    # Storage

    def _begin_block(self, words: list[bytes]) -> bytes:
        fewest, most = STORAGE[words[0]]
        if not fewest <= len(words) <= most:
            return ERROR
        request = commands.storage_request(words)
        if request is None:
            return b"" if words[-1] == b"noreply" else commands.BAD_FORMAT
        if not self.store.fits(request.key, request.flags, request.length):
            self.swallow = request.length + 2
            reply = commands.too_large(self.store, request)
            return b"" if request.noreply else reply
        self.request = request
        return b""

    def _block(self, request: StorageRequest, now: float) -> bytes:
        end = self.at + request.length + 2
        missing = end - len(self.buffer)
        if missing > 0:
            self._starve(missing)
            return b""
        block = self.buffer[self.at : end]
        self.at = end
        self.request = None
        reply = commands.store_block(self.store, request, block, now)
        return b"" if request.noreply else reply

    def _swallow(self) -> bytes:
        gone = min(self.swallow, len(self.buffer) - self.at)
        self.at += gone
        self.swallow -= gone
        if self.swallow:
            self._starve(1)
        return b""

    def _starve(self, missing: int) -> None:
        """Nothing more before `missing` bytes have come, or, if that is 0, some that help."""
        self.hungry = True
        self.missing = missing
