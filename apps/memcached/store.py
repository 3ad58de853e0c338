"""The items of one core: a dict in order of use, bounded in bytes. No protocol, no sockets, no clock.

`now` is in seconds since the store was made; so is an item's `expires`.
"""

from collections import OrderedDict
from dataclasses import dataclass, fields
from math import inf

ITEM_OVERHEAD_BYTES = 320
"""What an item costs beside its bytes: key, value and Item objects, a place in the dict. Measured by a test."""
MEMCACHED_HEADER_BYTES = 56
"""memcached's own overhead (item header and CAS), so that the largest value is the same as there."""
MONTH_SECONDS = 60 * 60 * 24 * 30


class Item:
    """A value, held as the whole answer to a `get`: `VALUE key flags length CR LF data CR LF`, data from `start`."""

    __slots__ = ("answer", "start", "flags", "expires", "cas")

    def __init__(self, key: bytes, flags: int, expires: float, block: bytes, cas: int) -> None:
        self.answer = b"VALUE %b %d %d\r\n%b" % (key, flags, len(block) - 2, block)
        self.start = len(self.answer) - len(block)
        self.flags = flags
        self.expires = expires
        self.cas = cas

    @property
    def value(self) -> bytes:
        return self.answer[self.start : -2]

    def answer_with_cas(self) -> bytes:
        """The answer to a `gets`."""
        return b"%b %d\r\n%b" % (self.answer[: self.start - 2], self.cas, self.answer[self.start :])


@dataclass(slots=True)
class Counters:
    """What `stats` tells, by memcached's names."""

    curr_connections: int = 0
    total_connections: int = 0
    cmd_set: int = 0
    cmd_flush: int = 0
    cmd_touch: int = 0
    get_hits: int = 0
    get_misses: int = 0
    delete_hits: int = 0
    delete_misses: int = 0
    incr_hits: int = 0
    incr_misses: int = 0
    decr_hits: int = 0
    decr_misses: int = 0
    cas_hits: int = 0
    cas_misses: int = 0
    cas_badval: int = 0
    touch_hits: int = 0
    touch_misses: int = 0
    store_too_large: int = 0
    store_no_memory: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    total_items: int = 0
    evictions: int = 0
    reclaimed: int = 0

    def reset(self) -> None:
        """`stats reset`: all but what is, rather than was."""
        for counter in fields(self):
            if counter.name != "curr_connections":
                setattr(self, counter.name, 0)


class Store:
    """All items. `limit_bytes` bounds them with their overhead; the least recently used go first."""

    def __init__(self, limit_bytes: int, max_item_bytes: int = 1 << 20, epoch: float = 0.0) -> None:
        self.limit_bytes = limit_bytes
        self.max_item_bytes = max_item_bytes
        self.epoch = epoch
        """The Unix time at which `now` was 0: absolute expiry times are reckoned from it."""
        self.items: OrderedDict[bytes, Item] = OrderedDict()
        self.bytes = 0
        self.last_cas = 0
        self.flush_at = inf
        self.count = Counters()
        self.verbosity = 0

    def tick(self, now: float) -> None:
        """Carry out a delayed flush_all. Called before any other use of the store at a later `now`."""
        if now >= self.flush_at:
            self.flush_at = inf
            self.clear()

    def get(self, key: bytes, now: float) -> Item | None:
        """The item, if it is there and lives; it becomes the most recently used."""
        item = self.items.get(key)
        if item is None:
            return None
        if item.expires <= now:
            self.delete(key)
            self.count.reclaimed += 1
            return None
        self.items.move_to_end(key)
        return item

    def put(self, key: bytes, flags: int, expires: float, block: bytes) -> bool:
        """Store a value, given with its CR LF, in place of the old one. False: it doesn't fit the memory at all."""
        old = self.items.pop(key, None)
        if old is not None:
            self.bytes -= weight(key, old)
        self.last_cas += 1
        item = Item(key, flags, expires, block, self.last_cas)
        size = weight(key, item)
        if size > self.limit_bytes:
            return False
        while self.bytes + size > self.limit_bytes:
            self._evict()
        self.items[key] = item
        self.bytes += size
        self.count.total_items += 1
        return True

    def delete(self, key: bytes) -> bool:
        """Remove an item, living or not. False: there was none."""
        item = self.items.pop(key, None)
        if item is None:
            return False
        self.bytes -= weight(key, item)
        return True

    def clear(self) -> None:
        """Remove all items."""
        self.items.clear()
        self.bytes = 0

    def fits(self, key: bytes, flags: int, length: int) -> bool:
        """May a value of this length be stored? The same limit as memcached's, to the byte."""
        size = MEMCACHED_HEADER_BYTES + len(key) + 1 + length + 2 + (4 if flags else 0)
        return size <= self.max_item_bytes

    def expiry(self, exptime: int, now: float) -> float:
        """When an item given `exptime` expires: 0 never, negative at once, up to 30 days from now, else a Unix time."""
        if exptime == 0:
            return inf
        if exptime < 0:
            return -inf
        return now + exptime if exptime <= MONTH_SECONDS else exptime - self.epoch

    def _evict(self) -> None:
        key, item = self.items.popitem(last=False)
        self.bytes -= weight(key, item)
        self.count.evictions += 1


def weight(key: bytes, item: Item) -> int:
    """Bytes an item is counted for."""
    return ITEM_OVERHEAD_BYTES + len(key) + len(item.answer)
