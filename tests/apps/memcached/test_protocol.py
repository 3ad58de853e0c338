"""The text protocol without a socket: replies, splits, portions, limits. What the replies should be, memcached itself
says in test_differential.py."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpserve.apps.memcached.protocol import GET_LINE_BYTES, PORTION_BYTES, Session
from mpserve.apps.memcached.store import Store


def store() -> Store:
    return Store(64 << 20, epoch=1_700_000_000.0)


def drain(session: Session, now: float = 1.0) -> bytes:
    replies = []
    while not session.hungry and not session.quit:
        replies.append(session.replies(now))
    return b"".join(replies)


def talk(*pieces: bytes, into: Store | None = None, now: float = 1.0) -> bytes:
    """The replies of a new connection to these pieces."""
    session = Session(into or store())
    replies = b""
    for piece in pieces:
        session.feed(piece)
        replies += drain(session, now)
    return replies


STREAM = (
    b"set a 5 0 3\r\nabc\r\nget a\r\ngets a b a\r\n\r\nadd a 0 0 1\r\nx\r\nreplace a 0 0 2 noreply\r\nxy\r\n"
    b"append a 0 0 2\r\n\r\n\r\nget a\r\ncas a 0 0 1 1\r\nz\r\nset n 0 0 2\r\n10\r\nincr n 5\r\ndecr n 100\r\n"
    b"get n a\r\n"
    b"set big 0 0 1100000\r\n" + b"x" * 1100 + b"\r\nget zz\r\n" + b"y" * 1098890 + b"\r\n"
    b"touch n 10\r\ndelete n\r\ndelete n noreply\r\nbogus\r\nset bad 0 0 1\r\nxxx\r\nflush_all\r\n"
    b"get a\r\nversion\r\nquit\r\n"
)
SHORT = STREAM.replace(b"1100000", b"4000000000").replace(b"y" * 1098890, b"")


def test_every_split_gives_the_same_replies() -> None:
    whole = talk(SHORT)
    assert whole.startswith(
        b"STORED\r\nVALUE a 5 3\r\nabc\r\nEND\r\nVALUE a 5 3 1\r\nabc\r\nVALUE a 5 3 1\r\nabc\r\nEND\r\nERROR\r\n"
    )
    for cut in range(1, len(SHORT)):
        assert talk(SHORT[:cut], SHORT[cut:]) == whole, cut
    assert talk(*(SHORT[i : i + 1] for i in range(len(SHORT)))) == whole


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 200_000), max_size=30))
def test_any_pieces_of_a_stream_with_a_refused_value(sizes: list[int]) -> None:
    stream, pieces = STREAM, []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    replies = talk(*pieces, stream)
    assert replies == talk(STREAM)
    assert b"object too large" in replies and b"VERSION" in replies


def test_a_large_value_in_many_pieces() -> None:
    value = bytes(range(256)) * 4000
    data = b"set a 0 0 %d\r\n%b\r\nget a\r\n" % (len(value), value)
    replies = talk(*(data[i : i + 1460] for i in range(0, len(data), 1460)))
    assert replies == b"STORED\r\nVALUE a 0 %d\r\n%b\r\nEND\r\n" % (len(value), value)


def test_replies_come_in_portions() -> None:
    session = Session(store())
    session.feed(
        b"set a 0 0 100000\r\n" + b"x" * 100_000 + b"\r\n" + b"get a\r\n" * 1000 + b"get" + b" a" * 1000 + b"\r\n"
    )
    total = 0
    while not session.hungry:
        portion = session.replies(0.0)
        assert len(portion) < PORTION_BYTES + 100_100
        total += len(portion)
    assert total == len(b"STORED\r\n") + 2000 * (100_000 + len(b"VALUE a 0 100000\r\n\r\n")) + 1001 * len(b"END\r\n")


def test_what_is_fed_between_two_portions_keeps_its_place() -> None:
    session = Session(store())
    session.feed(b"set a 0 0 100000\r\n" + b"x" * 100_000 + b"\r\n" + b"get a\r\n" * 5)
    session.replies(0.0)
    assert not session.hungry
    session.feed(b"vers")
    session.feed(b"ion\r\n")
    assert drain(session).endswith(b"END\r\nVERSION " + talk(b"version\r\n")[8:])


@pytest.mark.parametrize("line, closed", [(b"a" * 2048, False), (b"a" * 2049, True), (b"  get " + b"a" * 3000, False)])
def test_a_line_without_an_end(line: bytes, closed: bool) -> None:
    for pieces in ([line], [line[:5], line[5:]], [line[i : i + 1] for i in range(len(line))]):
        session = Session(store())
        for piece in pieces:
            session.feed(piece)
            assert drain(session) == b""
        assert session.quit is closed


def test_a_get_line_without_an_end_is_bounded() -> None:
    session = Session(store())
    session.feed(b"get ")
    for _ in range(GET_LINE_BYTES // 65536 + 1):
        session.feed(b"a" * 65536)
        drain(session)
    assert session.quit


def test_expiry_relative_absolute_and_negative() -> None:
    into = store()
    talk(
        b"set a 0 10 1\r\nx\r\nset b 0 1700000010 1\r\nx\r\nset c 0 -1 1\r\nx\r\nset d 0 0 1\r\nx\r\n",
        into=into,
        now=1.0,
    )
    for now, alive in ((9.9, b"abd"), (10.5, b"ad"), (11.5, b"d")):
        replies = talk(b"get a b c d\r\n", into=into, now=now)
        assert bytes(line[6] for line in replies.split(b"\r\n") if line.startswith(b"VALUE")) == alive


def test_gat_and_touch_prolong() -> None:
    into = store()
    talk(b"set a 0 5 1\r\nx\r\nset b 0 5 1\r\nx\r\ngat 100 a\r\ntouch b 100\r\n", into=into, now=0.0)
    assert talk(b"get a b\r\n", into=into, now=50.0).count(b"VALUE") == 2


def test_a_delayed_flush_all() -> None:
    into = store()
    talk(b"set a 0 0 1\r\nx\r\nflush_all 10\r\n", into=into, now=1.0)
    assert b"VALUE" in talk(b"get a\r\n", into=into, now=9.0)
    assert b"VALUE" not in talk(b"get a\r\n", into=into, now=10.0)
    assert talk(b"set a 0 0 1\r\nx\r\n", into=into, now=10.0) == b"STORED\r\n"
    assert b"VALUE" in talk(b"get a\r\n", into=into, now=20.0)


def test_memory_too_small_for_a_value() -> None:
    small = Store(2000, max_item_bytes=1 << 20)
    assert talk(b"set a 0 0 3000\r\n" + b"x" * 3000 + b"\r\nget a\r\n", into=small) == (
        b"SERVER_ERROR out of memory storing object\r\nEND\r\n"
    )


def test_stats() -> None:
    into = store()
    talk(b"set a 0 0 1\r\nx\r\nget a b\r\nincr a 1\r\nincr b 1\r\ntouch a 0\r\ndelete b\r\n", into=into)
    replies = talk(b"stats\r\n", into=into).decode()
    assert replies.endswith("\r\nEND\r\n")
    stats = dict(line.split(" ")[1:] for line in replies.splitlines() if line.startswith("STAT "))
    told = {name: int(stats[name]) for name in ("cmd_get", "cmd_set", "get_hits", "get_misses", "incr_misses")}
    assert told == {"cmd_get": 2, "cmd_set": 1, "get_hits": 1, "get_misses": 1, "incr_misses": 1}
    assert (stats["curr_items"], stats["delete_misses"], stats["touch_hits"]) == ("1", "1", "1")
    assert stats["limit_maxbytes"] == str(64 << 20)
    assert talk(b"stats reset\r\n", into=into) == b"RESET\r\n"
    assert b"STAT get_hits 0\r\n" in talk(b"stats\r\n", into=into)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [b"get ", b"set a 0 0 ", b"a", b" ", b"\r\n", b"5", b"noreply", b"incr a ", b"gat ", b"-1", b"\0"]
            ),
        ),
        max_size=25,
    )
)
def test_any_bytes_split_anywhere_give_the_same_replies(words: list[bytes]) -> None:
    data = b"".join(words)
    whole = talk(data)
    assert talk(*words) == whole
    assert whole == b"" or whole.endswith(b"\r\n")
