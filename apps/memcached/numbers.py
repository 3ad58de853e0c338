"""Numbers as memcached reads them: C's strtol and its kin, with blanks, signs and wrap-around.

A number ends at white space or at the end of the word; anything else makes it none.
"""

import re

NUMBER = re.compile(rb"[\t-\r ]*([+-]?[0-9]+)(?:[\t-\r ]|\Z)")
U64 = 1 << 64


def unsigned64(text: bytes) -> int | None:
    """strtoull: a negative number wraps, and is refused if it still looks negative then."""
    if text.isdigit() and len(text) < 20:
        return int(text)
    match = NUMBER.match(text)
    if match is None or len(match[1]) > 4000:
        return None
    value = int(match[1])
    if not -U64 < value < U64 or (value < 0 and value % U64 >= U64 // 2):
        return None
    return value % U64


def unsigned32(text: bytes) -> int | None:
    """An unsigned long, cut to 32 bits."""
    value = unsigned64(text)
    return None if value is None else value & 0xFFFFFFFF


def signed32(text: bytes) -> int | None:
    """A long, cut to 32 bits."""
    if text.isdigit() and len(text) < 10:
        return int(text)
    match = NUMBER.match(text)
    if match is None or len(match[1]) > 4000:
        return None
    value = int(match[1])
    if not -U64 // 2 <= value < U64 // 2:
        return None
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)
