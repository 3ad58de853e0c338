"""The same bytes to memcached itself and to ours: the same replies, byte for byte, but for version and counters."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from mpserve.apps.memcached.protocol import Session
from mpserve.apps.memcached.store import Store

KEY, LONG_KEY = b"k" * 250, b"k" * 251
MARKER = b"set end 0 0 11\r\nEND-OF-TEST\r\nget end\r\n"
ENDING = b"STORED\r\nVALUE end 0 11\r\nEND-OF-TEST\r\nEND\r\n"
pytestmark = pytest.mark.skipif(
    shutil.which("memcached") is None, reason="memcached isn't installed: apt install memcached"
)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """A memcached of our own on a free port of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen(["memcached", "-l", address[0], "-p", str(address[1]), "-U", "0", "-t", "1", *user])
    try:
        for _ in range(100):
            try:
                socket.create_connection(address).close()
                break
            except OSError:
                time.sleep(0.02)
        yield address
    finally:
        process.terminate()
        process.wait(5)


def theirs(address: tuple[str, int], script: bytes) -> tuple[bytes, bool]:
    """memcached's replies to a script, and whether it closed the connection in it."""
    with socket.create_connection(address, timeout=5) as sock:
        sock.sendall(b"flush_all\r\n")
        assert sock.recv(4) == b"OK\r\n"
        replies = b""
        try:
            sock.sendall(script + MARKER if script != LINE_WITHOUT_END else script)
            while not replies.endswith(ENDING):
                more = sock.recv(65536)
                if not more:
                    return replies, True
                replies += more
        except ConnectionError:
            return replies, True
        return replies.removesuffix(ENDING), False


def ours(script: bytes) -> tuple[bytes, bool]:
    session = Session(Store(64 << 20, epoch=time.time() - 10))
    session.feed(script)
    replies = b""
    while not session.hungry and not session.quit:
        replies += session.replies(10.0)
    return replies, session.quit


def masked(replies: bytes) -> bytes:
    """Without what may differ: the version, and CAS numbers, which count every store since the start."""
    replies = re.sub(rb"VERSION [^\r]+", b"VERSION", replies)
    return re.sub(rb"^(VALUE \S+ \d+ \d+) \d+\r", rb"\1 CAS\r", replies, flags=re.MULTILINE)


# A bar stands for CR LF, KEY for a key of 250 bytes, LONG for one of 251.
SCRIPTS = {
    "words missing": b"get|get |gets|set|set a|set a 0 0|incr|incr a|touch a|delete|cas a 0 0 1|verbosity|replace|add|"
    b"append|prepend|cas|",
    "words too many": b"set a 0 0 1 noreply x|cas a 0 0 1 1 noreply x|delete a b c d|incr n 1 2 3 4|flush_all 0 1 2|"
    b"verbosity 1 2 3 4|version x y|",
    "no such command": b"foo||\n\r|GET a|versionx|flush_allx|a|misbehave|",
    "blanks": b" get a|set a  0  0  1|x|get  a   a |get a\ta|version\n",
    "line ends": b"set a 0 0 1\nx|get a\nget a\r|get a\x00b|version\x00x|set a 0 0 1\r|x|",
    "noreply": b"set a 0 0 1 noreply|x|get a|add a 0 0 1 noreply|x|delete b noreply|incr b 1 noreply|"
    b"touch b 1 noreply|flush_all noreply|verbosity 1 noreply|set q 0 0 1 noreply|xyz|get q|"
    b"set a b 0 1 noreply|incr a x noreply|cas n 0 0 1 1 noreply|v|set a 0 0 1 nope|x|",
    "data chunks": b"set a 0 0 1|xyz|get a|set a 0 0 -1|set a 0 0 x|set a 0 0 0||get a|add aa 0 0 2|xx|set aa 0 0 1|"
    b"x\rz|get aa|set b 0 0 4||||get b|",
    "numbers": b"set a -1 0 1|set a 4294967295 0 1|x|get a|set a 4294967296 0 1|x|get a|"
    b"set a 18446744073709551616 0 1|set a 5x 0 1|set n +5 +0 +1|v|get n|set n 0x10 0 1|set n 010 0 1|"
    b"v|get n|set n -0 0 1|v|set n -18446744073709551615 0 1|v|get n|add a 0 0 2147483646|"
    b"add a 0 0 2147483648|set n 5\tx 0 1|v|get n|set z 0 0 4294967297|v|get z|",
    "expiry": b"set a 0 -1 1|x|get a|set n 0 99999999999 1|v|get n|set n 0 2592001 1|v|get n|set n 0 2592000 1|v|"
    b"get n|touch n -1|get n|touch n 5|set n 0 0 1|v|touch n 5 x|touch n x|"
    b"set n 0 99999999999999999999 1|set n 0 -99 1 noreply|v|add n 0 0 1|w|get n|",
    "arithmetic": b"set n 0 0 2|99|incr n 1|get n|decr n 95|get n|decr n 100|get n|incr n -1|"
    b"incr n 18446744073709551615|incr n 1|incr n 18446744073709551616|set a 0 0 3|abc|incr a 1|"
    b"set n 0 0 21|184467440737095516150|incr n 1|set n 0 0 3| 12|incr n 1|get n|set n 0 0 3|12 |"
    b"incr n 1|get n|set n 0 0 2|+5|incr n +1|get n|set n 0 0 2|-5|incr n 1|set e 0 0 0||incr e 1|"
    b"set n 7 0 1|9|incr n 1|get n|incr n 1 x|decr zz 1|set n 0 0 5|12 ab|incr n 1|get n|",
    "append and prepend": b"set n 1 0 1|2|append n 9 0 1|3|prepend n 0 -1 1|1|get n|append zz 0 0 1|x|"
    b"prepend zz 0 0 1|x|set n 0 0 3|999|append n 1 -1 1 noreply|x|get n|",
    "add, replace, cas": b"add a 1 0 1|x|add a 2 0 1|y|get a|replace a 3 0 2|yz|get a|replace zz 0 0 1|y|"
    b"cas a 0 0 1 999999|z|cas zz 0 0 1 1|z|cas a 0 0 1 x|cas a 0 0 1 -1|cas a 0 0 1 18446744073709551616|gets a zz a|",
    "delete": b"delete a 0|delete a 1|delete a foo|delete a 0 noreply|delete noreply|set a 0 0 1|x|delete a|"
    b"delete a|delete n n noreply|delete n 0 0|",
    "flush_all": b"set a 0 0 1|x|flush_all|get a|set a 0 0 1|x|flush_all 0|get a|set a 0 0 1|x|flush_all -1|get a|"
    b"set a 0 0 1|x|flush_all 99999999999|get a|flush_all 1000|get a|flush_all abc|"
    b"flush_all foo noreply|flush_all 0 foo|flush_all foo bar|flush_all|",
    "gat": b"set n 0 0 1|v|gat 100 n|gat|gat n|gat 10|gat x n|gats 10 n zz|gat -1 n|get n|",
    "stats": b"stats reset|stats foo|stats  bar baz|",
    "verbosity": b"verbosity 1|verbosity 0|verbosity abc|verbosity noreply|verbosity 1 2|verbosity -1|"
    b"verbosity 99999999999999999999|",
    "longest key": b"set KEY 0 0 1|x|get KEY|incr KEY 1|delete KEY|",
    "key too long to set": b"set LONG 0 0 1|",
    "key too long to get": b"get LONG|",
    "one key of several too long": b"get a LONG|",
    "key too long elsewhere": b"gat 1 LONG|delete LONG|incr LONG 1|touch LONG 1|",
    "quit": b"set a 0 0 1|x|quit|get a|",
    "quit with words": b"quit noreply|",
    "many keys": b"set a 0 0 1|x|get" + b" a b" * 1000 + b"|",
    "long line": b"a" * 5000 + b"|",
}
LINE_WITHOUT_END = b"a" * 3000
for length in (1048511, 1048512, 1048513, 1048516, 1048517, 1048576, 2000000):
    for flags in (b"0", b"7"):
        value = b"set a %b 0 %d|%b|" % (flags, length, b"x" * length)
        SCRIPTS[f"{length} bytes, flags {flags.decode()}"] = b"set a 0 0 1|x|" + value + b"append a 0 0 1|y|"


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_same_replies(address: tuple[str, int], script: bytes) -> None:
    script = script.replace(b"|", b"\r\n").replace(b"KEY", KEY).replace(b"LONG", LONG_KEY)
    expected, closed = theirs(address, script)
    replies, quit = ours(script)
    assert masked(replies) == masked(expected)
    assert quit is closed


def test_a_line_without_end_closes(address: tuple[str, int]) -> None:
    assert ours(LINE_WITHOUT_END) == theirs(address, LINE_WITHOUT_END) == (b"", True)
