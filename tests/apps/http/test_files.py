"""Static files: types, validators, ranges, and nothing that lies outside the root."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpserve.apps.http.files import SMALL_FILE_BYTES, Files, content_type, local_path
from mpserve.apps.http.parser import Refusal, Request
from mpserve.apps.http.replies import Reply, Span
from mpserve.dataplane.errors import SetupError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small site, with secrets beside it and links to them."""
    root = tmp_path / "site"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "index.html").write_bytes(b"<p>home</p>")
    (root / "sub" / "index.htm").write_bytes(b"sub")
    (root / "sub" / "a b.txt").write_bytes(b"blank")
    (root / "ü.txt").write_bytes(b"umlaut")
    (root / "zero").write_bytes(b"")
    (root / "big").write_bytes(os.urandom(SMALL_FILE_BYTES + 1))
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "site-too").mkdir()
    (tmp_path / "site-too" / "f").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "outdir").symlink_to(tmp_path / "site-too")
    (root / "dev").symlink_to("/dev/zero")
    (root / "in").symlink_to(root / "index.html")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def files(root: Path) -> Files:
    return Files(str(root), ["index.html", "index.htm"], 1 << 20)


def get(files: Files, target: str, /, method: Any = b"GET", **fields: Any) -> Reply:
    lines = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return files.respond(Request(method, target.encode(), 1, lines, 0))


def content(reply: Reply) -> bytes:
    """A reply's body; a Span is read and closed."""
    if isinstance(reply.body, bytes):
        return reply.body
    data = os.pread(reply.body.fd, reply.body.end - reply.body.start, reply.body.start)
    os.close(reply.body.fd)
    return data


def field(reply: Reply, name: str) -> str:
    lines = dict(line.split(": ", 1) for line in reply.fields.decode().split("\r\n") if line)
    return lines[name]


@pytest.mark.parametrize(
    "target, body, kind",
    [
        ("/", b"<p>home</p>", "text/html; charset=utf-8"),
        ("/?x=y", b"<p>home</p>", "text/html; charset=utf-8"),
        ("/index.html", b"<p>home</p>", "text/html; charset=utf-8"),
        ("/sub/", b"sub", "text/html; charset=utf-8"),
        ("/sub/a%20b.txt", b"blank", "text/plain; charset=utf-8"),
        ("/%C3%BC.txt", b"umlaut", "text/plain; charset=utf-8"),
        ("/zero", b"", "application/octet-stream"),
        ("/in", b"<p>home</p>", "application/octet-stream"),
        ("//sub//./deep/../a%20b.txt", b"blank", "text/plain; charset=utf-8"),
        ("/sub/..%2findex.html", b"<p>home</p>", "text/html; charset=utf-8"),
    ],
)
def test_a_file_and_its_type(files: Files, target: str, body: bytes, kind: str) -> None:
    for _ in range(2):  # once from the disk, once from the cache
        reply = get(files, target)
        assert (reply.status, content(reply), reply.length) == (200, body, len(body))
        assert field(reply, "Content-Type") == kind


@pytest.mark.parametrize(
    "target, status",
    [
        ("/nothing", 404),
        ("/empty/", 404),
        ("/index.html/", 404),
        ("/index.html/x", 404),
        ("/out", 404),
        ("/outdir/f", 404),
        ("/outdir", 301),
        ("/outdir/", 404),
        ("/dev", 404),
        ("/fifo", 404),
        ("/loop", 404),
        ("/../secret", 400),
        ("/sub/../../secret", 400),
        ("/%2e%2e/secret", 400),
        ("/..%2fsecret", 400),
        ("/%2e%2e%2fsite-too/f", 400),
        ("/..\\secret", 404),
        ("/%00", 400),
        ("/index.html%00.txt", 400),
        ("/%", 400),
        ("/%2", 400),
        ("/%zz", 400),
        ("/%ff", 404),
        ("/" + "a" * 5000, 404),
        ("/" + "a/" * 3000, 404),
    ],
)
def test_what_is_not_served(files: Files, target: str, status: int) -> None:
    reply = get(files, target)
    assert reply.status == status
    assert b"secret" not in content(reply)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["..", ".", "", "sub", "%2e%2e", "%2f", "out", "site-too", "secret", "f"]), max_size=8))
def test_no_path_leads_out(files: Files, segments: list[str]) -> None:
    reply = get(files, "/" + "/".join(segments))
    assert b"secret" not in content(reply)
    path = local_path(("/" + "/".join(segments)).encode())
    assert isinstance(path, Refusal) or (path.startswith("/") and ".." not in path.split("/"))


def test_a_link_turned_outward_after_it_was_cached_is_not_served(files: Files, root: Path) -> None:
    assert get(files, "/in").status == 200
    (root / "in").unlink()
    (root / "in").symlink_to(root.parent / "secret")
    assert get(files, "/in").status == 404


def test_a_changed_file_is_seen(files: Files, root: Path) -> None:
    before = get(files, "/")
    (root / "index.html").write_bytes(b"new")
    after = get(files, "/")
    assert after.body == b"new" and field(after, "ETag") != field(before, "ETag")


def test_a_directory_without_its_slash_moves(files: Files, root: Path) -> None:
    assert field(get(files, "/sub?a=b"), "Location") == "/sub/?a=b"
    (root / "é").mkdir()
    assert field(get(files, "/%C3%A9"), "Location") == "/%C3%A9/"
    (root / "example.com").mkdir()
    assert field(get(files, "//example.com"), "Location") == "/example.com/"


def test_not_modified(files: Files) -> None:
    etag, modified = (field(get(files, "/"), name) for name in ("ETag", "Last-Modified"))
    for condition in ("if_none_match", etag), ("if_modified_since", modified):
        reply = get(files, "/", **dict([condition]))
        assert (reply.status, reply.length, reply.body) == (304, None, b"")
        assert field(reply, "ETag") == etag
    assert get(files, "/", if_match='"x"').status == 412


def test_ranges(files: Files, root: Path) -> None:
    reply = get(files, "/", range="bytes=3-6")
    assert (reply.status, reply.body, reply.length) == (206, b"home", 4)
    assert field(reply, "Content-Range") == "bytes 3-6/11"
    reply = get(files, "/", range="bytes=11-")
    assert reply.status == 416 and field(reply, "Content-Range") == "bytes */11"
    assert get(files, "/", range="bytes=0-1,3-4").status == 200
    assert get(files, "/", method=b"HEAD", range="bytes=0-1").status == 200
    assert get(files, "/zero", range="bytes=0-").status == 416
    reply = get(files, "/big", range="bytes=-3")
    assert content(reply) == (root / "big").read_bytes()[-3:]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_no_descriptor_is_lost(files: Files) -> None:
    before = open_descriptors()
    reply = get(files, "/big")
    assert isinstance(reply.body, Span) and reply.length == SMALL_FILE_BYTES + 1
    assert open_descriptors() == before + 1
    content(reply)
    for target in ("/", "/dev", "/fifo", "/out", "/loop", "/nothing", "/sub"):
        get(files, target)
    get(files, "/big", range="bytes=9999999-")
    get(files, "/big", if_none_match=field(get(files, "/"), "ETag"), if_match='"x"')
    etag = field(big := get(files, "/big"), "ETag")
    content(big)
    assert get(files, "/big", if_none_match=etag).status == 304
    assert open_descriptors() == before


def test_too_many_open_files_is_503(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    assert get(files, "/").status == 503


def test_unreadable_is_403(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert get(files, "/").status == 403


def test_the_cache_is_bounded(root: Path) -> None:
    files = Files(str(root), [], 20_000)
    for i in range(40):
        (root / f"{i}.txt").write_bytes(b"x" * 3000)
        assert get(files, f"/{i}.txt").status == 200
    assert 0 < files.cached_bytes <= 20_000
    assert files.cached_bytes == sum(entry.weight for entry in files._cache.values())
    (root / "1.txt").write_bytes(b"y" * 50_000)
    assert get(files, "/1.txt").body == b"y" * 50_000
    assert files.cached_bytes == sum(entry.weight for entry in files._cache.values()) <= 20_000


def test_a_compressed_file_is_sent_as_one() -> None:
    assert content_type("/a/x.tar.gz") == b"application/gzip"
    assert content_type("/a/x.svg") == b"image/svg+xml"
    assert content_type("data:text/html,x") == b"application/octet-stream"


@pytest.mark.parametrize("missing", ["nowhere", "index.html"])
def test_a_root_that_is_none(root: Path, missing: str) -> None:
    with pytest.raises(SetupError, match="is not a directory: give an existing one"):
        Files(str(root / missing), [], 0)


def test_the_root_of_the_file_system_can_be_served(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    assert get(Files("/", [], 1000), f"{tmp_path}/f").body == b"x"
