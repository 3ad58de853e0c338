"""examples/static_files.py: a large file to a reader of any speed, and nothing from outside the root."""

import os
from pathlib import Path
from typing import Any

import pytest

from mpserve.dataplane.errors import SetupError

pytestmark = pytest.mark.on_kernel_sockets

BIG = os.urandom(2_000_000)


@pytest.fixture
def host(mpserve_host: Any, example: Any, tmp_path: Path) -> Any:
    root = tmp_path / "public"
    root.mkdir()
    (root / "index.html").write_bytes(b"home")
    (root / "a b").write_bytes(b"blank")
    (root / "big").write_bytes(BIG)
    (root / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"secret")
    return mpserve_host(example("static_files.py:StaticFiles")(root=root))


def get(host: Any, target: str, method: str = "GET") -> tuple[int, bytes]:
    client = host.connect()
    client.send(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    client.close()
    host.advance(3.0)
    head, _, body = client.recv().partition(b"\r\n\r\n")
    assert client.eof and not client.was_reset
    assert f"Content-Length: {len(body)}".encode() in head
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    "target, body", [("/", b"home"), ("/index.html?x", b"home"), ("/a%20b", b"blank"), ("/big", BIG)]
)
def test_a_file(host: Any, target: str, body: bytes) -> None:
    assert get(host, target) == (200, body)


@pytest.mark.parametrize("target", ["/nothing", "/out", "/../secret", "/%2e%2e/secret", "//etc/passwd", "/%00"])
def test_what_is_not_served(host: Any, target: str) -> None:
    assert get(host, target) == (404, b"")


def test_other_methods(host: Any) -> None:
    assert get(host, "/", "POST")[0] == 405


def open_files() -> list[str]:
    return [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]


def test_one_that_leaves_in_the_middle_leaves_no_file_open(host: Any) -> None:
    big = str(host.handler.root / "big")
    client = host.connect(window=0)
    client.send(b"GET /big HTTP/1.1\r\n\r\n")
    host.settle()
    assert big in open_files()
    client.reset()
    host.settle()
    assert big not in open_files()


def test_a_request_that_does_not_come(host: Any) -> None:
    silent, endless = host.connect(), host.connect()
    endless.send(b"x" * 9000)
    host.settle()
    assert endless.recv().startswith(b"HTTP/1.0 431 ")
    host.advance(11.0)
    assert silent.eof


def test_a_root_that_is_none(example: Any, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not a directory: type --set root=DIR"):
        example("static_files.py:StaticFiles")(root=tmp_path / "nowhere").on_start(None)
