"""The HTTP handler as the standard library's client sees it, on the real stack in virtual time."""

import http.client
from pathlib import Path
from typing import Any

import pytest

from mpserve.apps.http import Http

FILE = bytes(range(256)) * 2000


@pytest.fixture
def client(mpserve_host: Any, client_socket: Any, tmp_path: Path) -> http.client.HTTPConnection:
    (tmp_path / "index.html").write_bytes(b"home")
    (tmp_path / "file.bin").write_bytes(FILE)
    host = mpserve_host(Http(root=str(tmp_path)))
    client = http.client.HTTPConnection("10.9.0.2")
    client.connect = lambda: setattr(client, "sock", client_socket(host))  # type: ignore[method-assign]
    return client


def ask(client: http.client.HTTPConnection, method: str, target: str, **rest: Any) -> tuple[Any, bytes]:
    client.request(method, target, **rest)
    reply = client.getresponse()
    return reply, reply.read()


def test_one_connection_for_everything(client: http.client.HTTPConnection) -> None:
    reply, body = ask(client, "GET", "/")
    sock = client.sock
    assert (reply.status, body, reply.headers["Content-Type"]) == (200, b"home", "text/html; charset=utf-8")
    assert ask(client, "GET", "/file.bin")[1] == FILE
    reply, body = ask(client, "HEAD", "/file.bin")
    assert reply.headers["Content-Length"] == str(len(FILE)) and body == b""
    etag = reply.headers["ETag"]
    assert ask(client, "GET", "/file.bin", headers={"If-None-Match": etag})[0].status == 304
    reply, body = ask(client, "GET", "/file.bin", headers={"Range": "bytes=1000-1999", "If-Range": etag})
    assert reply.status == 206 and body == FILE[1000:2000]
    assert ask(client, "GET", "/nothing")[0].status == 404
    reply, _ = ask(client, "POST", "/", body=b"x" * 100_000)
    assert reply.status == 405 and reply.headers["Allow"] == "GET, HEAD, OPTIONS"
    reply, _ = ask(client, "PUT", "/", body=iter([b"ab", b"cde"]), encode_chunked=True)
    assert reply.status == 405
    assert ask(client, "OPTIONS", "*")[0].status == 204
    assert ask(client, "GET", "/")[1] == b"home"
    assert client.sock is sock


def test_the_server_closes_when_asked(client: http.client.HTTPConnection) -> None:
    reply, body = ask(client, "GET", "/", headers={"Connection": "close"})
    assert body == b"home" and reply.headers["Connection"] == "close" and client.sock is None


def test_a_body_that_is_too_long_is_refused_legibly(client: http.client.HTTPConnection) -> None:
    reply, body = ask(client, "POST", "/", body=b"x" * 2_000_000)
    assert reply.status == 413 and b"a body may have 1048576 bytes" in body
