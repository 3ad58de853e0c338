"""examples/fastapi_app.py: on uvicorn and our transports, in virtual time. `tests/system` serves it over a device."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

import mpserve

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_app.py"


def load_app() -> Any:
    pytest.importorskip("fastapi")
    spec = importlib.util.spec_from_file_location("fastapi_app", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


class Uvicorn(mpserve.Handler):
    """uvicorn's HTTP protocol on the host's loop."""

    async def handle(self, stream: Any) -> None: ...

    async def serve(self, app: Any) -> None:
        uvicorn = pytest.importorskip("uvicorn")
        config = uvicorn.Config(app, host="10.9.0.2", port=80, lifespan="off", log_config=None)
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup()


def answer(host: Any, path: str) -> Any:
    client = host.connect(80)
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    host.advance(0.2)
    head, _, body = client.recv().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK") and client.eof
    return json.loads(body)


def test_routes(mpserve_host: Any) -> None:
    app = load_app()
    handler = Uvicorn()
    host = mpserve_host(handler)
    loop = host.worker.loop
    started = loop.create_task(handler.serve(app))
    host.advance(0.1)
    assert started.done() and started.exception() is None
    assert answer(host, "/add/20/22") == {"sum": 42}
    assert answer(host, "/") == {"hello": "10.9.0.1"}
