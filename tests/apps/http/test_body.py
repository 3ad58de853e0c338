"""Bodies: where they end, whatever way they come."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpserve.apps.http.body import ChunkedBody, LengthBody
from mpserve.apps.http.parser import Refusal

CHUNKED = b'4\r\nWiki\r\n5;a="b c"\r\npedia\r\n0E ; x\r\n in\r\n\r\nchunks.\r\n0\r\nX: y\r\nExpires: never\r\n\r\n'


def feed(body: LengthBody | ChunkedBody, pieces: list[bytes]) -> tuple[bytes, Refusal | None]:
    """What is left over of the pieces after the body, and the refusal there was."""
    buf = b""
    for piece in pieces:
        buf += piece
        if body.done:
            continue
        end = body.consume(buf, 0)
        if isinstance(end, Refusal):
            return buf, end
        buf = buf[end:]
    return buf, None


def test_every_split_of_a_chunked_body_ends_at_the_same_place() -> None:
    for cut in range(len(CHUNKED) + 1):
        body = ChunkedBody(1000)
        assert feed(body, [CHUNKED[:cut], CHUNKED[cut:] + b"GET"]) == (b"GET", None)
        assert body.done


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=60))
def test_any_pieces_of_a_chunked_body(sizes: list[int]) -> None:
    data, pieces = CHUNKED + b"NEXT", []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    body = ChunkedBody(1000)
    assert feed(body, [*pieces, data]) == (b"NEXT", None)
    assert body.done


def test_length_body() -> None:
    body = LengthBody(5)
    assert feed(body, [b"ab", b"", b"cdeX"]) == (b"X", None)
    assert body.done


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"zz\r\n", 400),
        (b"-1\r\n", 400),
        (b"0x1\r\na\r\n", 400),
        (b" 1\r\na\r\n", 400),
        (b"1 \r\na\r\n", 400),
        (b"1\na\r\n", 400),
        (b"1;\x01\r\na\r\n", 400),
        (b"\r\n", 400),
        (b"1\r\nab\r\n", 400),
        (b"1\r\na\n\r\n", 400),
        (b"11111111111111111\r\n", 400),
        (b"ffffffffffffffff\r\n", 413),
        (b"3e9\r\n", 413),
        (b"1;" + b"a" * 2000, 400),
        (b"0\r\nX : y\r\n\r\n", 400),
        (b"0\r\n x: y\r\n\r\n", 400),
        (b"0\r\nX: y\n\r\n", 400),
        (b"0\r\n" + (b"X: " + b"y" * 900 + b"\r\n") * 10, 431),
    ],
)
def test_malformed_chunks(data: bytes, expected: int) -> None:
    _, refusal = feed(ChunkedBody(1000), [data])
    assert refusal is not None and refusal.status == expected


def test_chunks_add_up_to_the_limit() -> None:
    body = ChunkedBody(10)
    assert feed(body, [b"5\r\n12345\r\n5\r\n12345\r\n0\r\n\r\n"]) == (b"", None)
    _, refusal = feed(ChunkedBody(10), [b"5\r\n12345\r\n6\r\n"])
    assert refusal is not None and refusal.status == 413
