"""The same 64 bytes by ASGI, for uvicorn and granian."""

from __future__ import annotations

from typing import Any

from mpserve.cli.bench.protocols import BODY

_HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": BODY})
