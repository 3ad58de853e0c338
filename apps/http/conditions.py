"""Conditional and range requests (RFC 9110, sections 13 and 14): what a GET of a file with validators comes to."""

import re
from calendar import timegm
from email.utils import parsedate_tz
from enum import Enum

from mpserve.apps.http.parser import list_members

RANGE = re.compile(rb"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


class Outcome(Enum):
    """What the preconditions say."""

    PROCEED = 200
    NOT_MODIFIED = 304
    PRECONDITION_FAILED = 412


def preconditions(fields: dict[bytes, bytes], etag: bytes, modified: int) -> Outcome:
    """Evaluate If-Match, If-Unmodified-Since, If-None-Match and If-Modified-Since in the order of RFC 9110, 13.2.2.

    `modified` is the file's time in whole seconds. Dates that can't be read are ignored, as the RFC asks.
    """
    if b"if-match" in fields:
        if not etag_listed(fields[b"if-match"], etag, weak=False):
            return Outcome.PRECONDITION_FAILED
    elif (since := parse_date(fields.get(b"if-unmodified-since"))) is not None and modified > since:
        return Outcome.PRECONDITION_FAILED
    if b"if-none-match" in fields:
        if etag_listed(fields[b"if-none-match"], etag, weak=True):
            return Outcome.NOT_MODIFIED
    elif (since := parse_date(fields.get(b"if-modified-since"))) is not None and modified <= since:
        return Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def etag_listed(value: bytes, etag: bytes, *, weak: bool) -> bool:
    """Is our (strong) `etag` in a list of entity tags? The weak comparison overlooks a W/ prefix."""
    if value == b"*":
        return True
    tags = list_members(value)
    return etag in tags or (weak and b"W/" + etag in tags)


def parse_date(value: bytes | None) -> int | None:
    """Seconds since the epoch of an HTTP date in any of its three forms, or None."""
    if value is None:
        return None
    fields = parsedate_tz(value.decode("latin-1"))
    if fields is None:
        return None
    try:
        return timegm(fields[:6] + (0, 0, 0)) - (fields[9] or 0)
    except (ValueError, OverflowError):
        return None


def requested_range(fields: dict[bytes, bytes], etag: bytes, modified: int, length: int) -> tuple[int, int] | None:
    """The part of a file of `length` bytes that Range asks for, as (start, end), end not included.

    None is the whole file: no Range, several ranges, one that can't be read, or an If-Range that doesn't hold (RFC 9110
    lets a server ignore all of these). An empty part, start == end, can't be satisfied: 416.
    """
    value = fields.get(b"range")
    if value is None or not if_range_holds(fields.get(b"if-range"), etag, modified):
        return None
    match = RANGE.fullmatch(value)
    if match is None or (not match[1] and not match[2]):
        return None
    if not match[1]:
        return max(0, length - int(match[2])), length
    start = int(match[1])
    end = int(match[2]) + 1 if match[2] else length
    if match[2] and end <= start:
        return None
    return (start, min(end, length)) if start < length else (length, length)


def if_range_holds(value: bytes | None, etag: bytes, modified: int) -> bool:
    """If-Range: a strong entity tag, or the exact date (RFC 9110, 13.1.5)."""
    if value is None:
        return True
    return value == etag if value.startswith((b'"', b"W/")) else parse_date(value) == modified
