"""Preconditions and ranges."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpserve.apps.http.conditions import Outcome, parse_date, preconditions, requested_range
from mpserve.apps.http.replies import http_date

ETAG = b'"abc"'
MODIFIED = 1_700_000_000
DATE, EARLIER, LATER = (http_date(MODIFIED + delta) for delta in (0, -10, 10))


@pytest.mark.parametrize(
    "fields, outcome",
    [
        ({}, Outcome.PROCEED),
        ({b"if-none-match": b'"abc"'}, Outcome.NOT_MODIFIED),
        ({b"if-none-match": b'W/"abc"'}, Outcome.NOT_MODIFIED),
        ({b"if-none-match": b'"x", "abc"'}, Outcome.NOT_MODIFIED),
        ({b"if-none-match": b"*"}, Outcome.NOT_MODIFIED),
        ({b"if-none-match": b'"x"'}, Outcome.PROCEED),
        ({b"if-modified-since": DATE}, Outcome.NOT_MODIFIED),
        ({b"if-modified-since": LATER}, Outcome.NOT_MODIFIED),
        ({b"if-modified-since": EARLIER}, Outcome.PROCEED),
        ({b"if-modified-since": b"yesterday"}, Outcome.PROCEED),
        ({b"if-none-match": b'"x"', b"if-modified-since": LATER}, Outcome.PROCEED),
        ({b"if-match": b'"abc"'}, Outcome.PROCEED),
        ({b"if-match": b'W/"abc"'}, Outcome.PRECONDITION_FAILED),
        ({b"if-match": b'"x"'}, Outcome.PRECONDITION_FAILED),
        ({b"if-match": b"*"}, Outcome.PROCEED),
        ({b"if-unmodified-since": EARLIER}, Outcome.PRECONDITION_FAILED),
        ({b"if-unmodified-since": DATE}, Outcome.PROCEED),
    ],
)
def test_preconditions(fields: dict[bytes, bytes], outcome: Outcome) -> None:
    assert preconditions(fields, ETAG, MODIFIED) is outcome


@pytest.mark.parametrize(
    "value, part",
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=0-99", (0, 100)),
        (b"bytes=0-100", (0, 100)),
        (b"bytes=50-", (50, 100)),
        (b"bytes=-1", (99, 100)),
        (b"bytes=-500", (0, 100)),
        (b"BYTES=1-2", (1, 3)),
        (b"bytes=99-", (99, 100)),
        (b"bytes=100-", (100, 100)),
        (b"bytes=100-200", (100, 100)),
        (b"bytes=-0", (100, 100)),
        (b"bytes=2-1", None),
        (b"bytes=0-1,3-4", None),
        (b"bytes=-", None),
        (b"bytes=a-b", None),
        (b"lines=0-1", None),
        (b"bytes=" + b"9" * 40 + b"-", None),
    ],
)
def test_range_of_a_hundred_bytes(value: bytes, part: tuple[int, int] | None) -> None:
    assert requested_range({b"range": value}, ETAG, MODIFIED, 100) == part


@pytest.mark.parametrize(
    "if_range, holds", [(ETAG, True), (b'"x"', False), (b'W/"abc"', False), (DATE, True), (EARLIER, False)]
)
def test_if_range(if_range: bytes, holds: bool) -> None:
    fields = {b"range": b"bytes=0-0", b"if-range": if_range}
    assert requested_range(fields, ETAG, MODIFIED, 100) == ((0, 1) if holds else None)


def test_dates_in_three_forms() -> None:
    for text in (b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"):
        assert parse_date(text) == 784111777


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.from_regex(rb"[A-Z][a-z]{2}, [0-9]{1,6} [A-Z][a-z]{2} [0-9:+ -]{0,30}")))
def test_any_date_is_a_number_or_none(value: bytes) -> None:
    assert parse_date(value) is None or isinstance(parse_date(value), int)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=30), st.from_regex(rb"\Abytes=[0-9]{0,20}-[0-9]{0,20}\Z")), st.integers(0, 1000))
def test_any_range_lies_inside_the_file(value: bytes, length: int) -> None:
    part = requested_range({b"range": value}, ETAG, MODIFIED, length)
    assert part is None or 0 <= part[0] <= part[1] <= length
