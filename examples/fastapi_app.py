"""A FastAPI app over the stack: two routes and a WebSocket; nothing in it knows of mpserve.

    uvicorn --app-dir examples --loop mpserve.asyncio:loop_factory --host 10.9.0.2 --port 8000 fastapi_app:app
    curl http://10.9.0.2:8000/add/1/2

The stack's address and device come from MPSERVE_IP, MPSERVE_DEVICE ... or mpserve.toml; `docs/asyncio.md` has the rest.
"""

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect

app = FastAPI()


@app.get("/")
async def hello(request: Request) -> dict[str, str]:
    return {"hello": request.client.host if request.client else "somebody"}


@app.get("/add/{a}/{b}")
async def add(a: int, b: int) -> dict[str, int]:
    return {"sum": a + b}


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass
