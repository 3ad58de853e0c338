"""memcached's text commands that stand on one line: words in, one reply out. Error lines are memcached 1.6's.

The storage commands, which a data block follows, and the get family, whose replies can be long, are driven by
protocol.py; what they do to the store stands here too.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from mpserve import __version__
from mpserve.apps.memcached.numbers import signed32, unsigned32, unsigned64
from mpserve.apps.memcached.stats import stats
from mpserve.apps.memcached.store import Item, Store

KEY_BYTES = 250
U64_MASK = (1 << 64) - 1

ERROR = b"ERROR\r\n"
BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"
BAD_DELETE = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
BAD_CHUNK = b"CLIENT_ERROR bad data chunk\r\n"
BAD_DELTA = b"CLIENT_ERROR invalid numeric delta argument\r\n"
BAD_EXPTIME = b"CLIENT_ERROR invalid exptime argument\r\n"
NON_NUMERIC = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
TOO_LARGE = b"SERVER_ERROR object too large for cache\r\n"
NO_MEMORY = b"SERVER_ERROR out of memory storing object\r\n"
STORED, NOT_STORED, EXISTS = b"STORED\r\n", b"NOT_STORED\r\n", b"EXISTS\r\n"
NOT_FOUND, DELETED, TOUCHED, OK = b"NOT_FOUND\r\n", b"DELETED\r\n", b"TOUCHED\r\n", b"OK\r\n"

VERSION = __version__.encode()


class StorageRequest(NamedTuple):
    """The line of a storage command, read; `length` bytes of data and CR LF follow it."""

    name: bytes
    key: bytes
    flags: int
    exptime: int
    length: int
    cas: int
    noreply: bool


def storage_request(words: list[bytes]) -> StorageRequest | None:
    """Read `set KEY FLAGS EXPTIME LENGTH [CAS] [noreply]`; None if a word isn't what it should be."""
    flags, exptime, length = unsigned32(words[2]), signed32(words[3]), signed32(words[4])
    cas = unsigned64(words[5]) if words[0] == b"cas" else 0
    if flags is None or exptime is None or length is None or cas is None or len(words[1]) > KEY_BYTES:
        return None
    if not 0 <= length <= (1 << 31) - 3:
        return None
    return StorageRequest(words[0], words[1], flags, exptime, length, cas, words[-1] == b"noreply")


def store_block(store: Store, request: StorageRequest, block: bytes, now: float) -> bytes:
    """Carry out a storage command whose data block, CR LF included, is here."""
    if not block.endswith(b"\r\n"):
        return BAD_CHUNK
    store.count.cmd_set += 1
    name, key, flags = request.name, request.key, request.flags
    if name == b"set":
        return put(store, key, flags, store.expiry(request.exptime, now), block)
    old = store.get(key, now)
    if name == b"cas":
        refused = cas_refused(store, old, request.cas)
        if refused:
            return refused
    elif (old is None) != (name == b"add"):
        return NOT_STORED
    if name in (b"append", b"prepend"):
        assert old is not None
        value = old.value + block if name == b"append" else block[:-2] + old.value + b"\r\n"
        if not store.fits(key, old.flags, len(value) - 2):
            return NOT_STORED
        return put(store, key, old.flags, old.expires, value)
    return put(store, key, flags, store.expiry(request.exptime, now), block)


def put(store: Store, key: bytes, flags: int, expires: float, block: bytes) -> bytes:
    if store.put(key, flags, expires, block):
        return STORED
    store.count.store_no_memory += 1
    return NO_MEMORY


def cas_refused(store: Store, old: Item | None, cas: int) -> bytes:
    """Why a `cas` isn't carried out; nothing if it is."""
    if old is None:
        store.count.cas_misses += 1
        return NOT_FOUND
    if old.cas != cas:
        store.count.cas_badval += 1
        return EXISTS
    store.count.cas_hits += 1
    return b""


def too_large(store: Store, request: StorageRequest) -> bytes:
    """A value that is refused for its length. A `set` removes the old one: it must not pass for the new."""
    store.count.store_too_large += 1
    if request.name == b"set":
        store.delete(request.key)
    return TOO_LARGE


def incr(store: Store, words: list[bytes], now: float) -> bytes:
    return add_delta(store, words, now, 1)


def decr(store: Store, words: list[bytes], now: float) -> bytes:
    return add_delta(store, words, now, -1)


def add_delta(store: Store, words: list[bytes], now: float, sign: int) -> bytes:
    """incr wraps at 64 bits, decr stops at 0; a shorter result is padded with blanks, as memcached does it in place."""
    key = words[1]
    if len(key) > KEY_BYTES:
        return BAD_FORMAT
    delta = unsigned64(words[2])
    if delta is None:
        return BAD_DELTA
    item = store.get(key, now)
    if item is None:
        count_delta(store, sign, hit=False)
        return NOT_FOUND
    value = unsigned64(item.value)
    if value is None:
        return NON_NUMERIC
    count_delta(store, sign, hit=True)
    result = b"%d" % ((value + delta) & U64_MASK if sign > 0 else max(0, value - delta))
    total_items = store.count.total_items
    store.put(key, item.flags, item.expires, result.ljust(len(item.answer) - item.start - 2) + b"\r\n")
    store.count.total_items = total_items
    return result + b"\r\n"


def count_delta(store: Store, sign: int, *, hit: bool) -> None:
    count = store.count
    if sign > 0:
        count.incr_hits, count.incr_misses = count.incr_hits + hit, count.incr_misses + (not hit)
    else:
        count.decr_hits, count.decr_misses = count.decr_hits + hit, count.decr_misses + (not hit)


def touch(store: Store, words: list[bytes], now: float) -> bytes:
    if len(words[1]) > KEY_BYTES:
        return BAD_FORMAT
    exptime = signed32(words[2])
    if exptime is None:
        return BAD_EXPTIME
    return NOT_FOUND if touch_item(store, words[1], exptime, now) is None else TOUCHED


def touch_item(store: Store, key: bytes, exptime: int, now: float) -> Item | None:
    """Give a living item a new expiry time."""
    store.count.cmd_touch += 1
    item = store.get(key, now)
    if item is None:
        store.count.touch_misses += 1
        return None
    store.count.touch_hits += 1
    item.expires = store.expiry(exptime, now)
    return item


def delete(store: Store, words: list[bytes], now: float) -> bytes:
    """`delete KEY [0] [noreply]`: the 0 was once a time to hold the key for."""
    if words[2:] not in ([], [b"0"], [b"noreply"], [b"0", b"noreply"]):
        return BAD_DELETE
    if len(words[1]) > KEY_BYTES:
        return BAD_FORMAT
    if store.get(words[1], now) is None:
        store.count.delete_misses += 1
        return NOT_FOUND
    store.count.delete_hits += 1
    store.delete(words[1])
    return DELETED


def flush_all(store: Store, words: list[bytes], now: float) -> bytes:
    """All that is stored until now, or until a time to come, is gone from then on."""
    store.count.cmd_flush += 1
    exptime: int | None = 0
    if len(words) != (2 if words[-1] == b"noreply" else 1):
        exptime = signed32(words[1])
    if exptime is None:
        return BAD_EXPTIME
    flush_at = now if exptime <= 0 else store.expiry(exptime, now) - 1
    store.flush_at = flush_at if flush_at > 0 else inf  # a time before this server's is none, as in memcached
    store.tick(now)
    return OK


def verbosity(store: Store, words: list[bytes], now: float) -> bytes:
    level = unsigned32(words[1])
    if level is None:
        return BAD_FORMAT
    store.verbosity = level
    return OK


def version_line(store: Store, words: list[bytes], now: float) -> bytes:
    return b"VERSION %b\r\n" % VERSION


def stats_lines(store: Store, words: list[bytes], now: float) -> bytes:
    return stats(store, words[1:], VERSION, now)


class Command(NamedTuple):
    """A one-line command: how many words it takes, its own name included, and whether the last may be `noreply`."""

    run: Callable[[Store, list[bytes], float], bytes]
    fewest: int
    most: int
    noreply: bool


ANY = 1 << 30
COMMANDS = {
    b"incr": Command(incr, 3, 4, True),
    b"decr": Command(decr, 3, 4, True),
    b"touch": Command(touch, 3, 4, True),
    b"delete": Command(delete, 2, 4, True),
    b"flush_all": Command(flush_all, 1, 3, True),
    b"verbosity": Command(verbosity, 2, 3, True),
    b"version": Command(version_line, 1, ANY, False),
    b"stats": Command(stats_lines, 1, ANY, False),
}
STORAGE = {
    b"set": (5, 6),
    b"add": (5, 6),
    b"replace": (5, 6),
    b"append": (5, 6),
    b"prepend": (5, 6),
    b"cas": (6, 7),
}
RETRIEVAL = frozenset((b"get", b"gets", b"gat", b"gats"))


def run(store: Store, words: list[bytes], now: float) -> bytes:
    """Carry out a one-line command. The reply is empty if the client wants none."""
    command = COMMANDS.get(words[0])
    if command is None or not command.fewest <= len(words) <= command.most:
        return ERROR
    reply = command.run(store, words, now)
    # `delete noreply` deletes the key of that name; everywhere else the last word counts
    silent = command.noreply and words[-1] == b"noreply" and (len(words) > 2 or words[0] != b"delete")
    return b"" if silent else reply
