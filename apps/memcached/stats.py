"""The `stats` command: counters by memcached's names, in its order. What has no counterpart here is left out."""

import os
import resource

from mpserve.apps.memcached.store import Store

COUNTED_FIRST = ("curr_connections", "total_connections")
COUNTED = (
    "cmd_set cmd_flush cmd_touch get_hits get_misses delete_misses delete_hits incr_misses incr_hits "
    "decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large store_no_memory "
    "bytes_read bytes_written"
).split()


def stats(store: Store, words: list[bytes], version: bytes, now: float) -> bytes:
    """The reply to `stats [settings | reset | items | slabs]`."""
    if not words:
        return lines(general(store, version, now))
    if words[0] == b"reset":
        store.count.reset()
        return b"RESET\r\n"
    if words[0] == b"settings":
        return lines(settings(store))
    if words[0] in (b"items", b"slabs"):  # there are no slabs
        return b"END\r\n"
    return b"ERROR\r\n"


def general(store: Store, version: bytes, now: float) -> dict[str, str]:
    """What is and has been going on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    count = store.count
    return (
        {
            "pid": f"{os.getpid()}",
            "uptime": f"{int(now)}",
            "time": f"{int(store.epoch + now)}",
            "version": version.decode(),
            "pointer_size": "64",
            "rusage_user": f"{usage.ru_utime:.6f}",
            "rusage_system": f"{usage.ru_stime:.6f}",
        }
        | {name: str(getattr(count, name)) for name in COUNTED_FIRST}
        | {"cmd_get": str(count.get_hits + count.get_misses)}
        | {name: str(getattr(count, name)) for name in COUNTED}
        | {
            "limit_maxbytes": str(store.limit_bytes),
            "threads": "1",
            "bytes": str(store.bytes),
            "curr_items": str(len(store.items)),
            "total_items": str(count.total_items),
            "evictions": str(count.evictions),
            "reclaimed": str(count.reclaimed),
        }
    )


def settings(store: Store) -> dict[str, str]:
    return {
        "maxbytes": str(store.limit_bytes),
        "verbosity": str(store.verbosity),
        "evictions": "on",
        "cas_enabled": "yes",
        "item_size_max": str(store.max_item_bytes),
        "num_threads": "1",
        "flush_enabled": "yes",
    }


def lines(values: dict[str, str]) -> bytes:
    return "".join(f"STAT {name} {value}\r\n" for name, value in values.items()).encode() + b"END\r\n"
