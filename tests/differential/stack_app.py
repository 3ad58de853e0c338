"""The application on mpserve: a handler that does what the lines on a Unix socket say, as `kernel_app` does on the kernel's TCP."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import mpserve
from mpserve.dataplane.events import Reason

PATIENCE = 3.0  # seconds that an operation waits for what it is about
ENDS = {
    Reason.RESET: "reset",
    Reason.REFUSED: "refused",
    Reason.TIMED_OUT: "timed out",
    Reason.FINISHED: "eof",
    Reason.ABORTED: "aborted",
}


Answer = Callable[..., None]


class Flow:
    """A connection as the application knows it: its socket, what it has read and not yet told, how it ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sock: mpserve.LwSocket | None = None
        self.is_there = False  # established, once
        self.data = bytearray()
        self.end = ""
        self.waiting: list[Callable[[], bool]] = []  # what looks whether an order can be answered, and then answers it


class Controlled(mpserve.Handler):
    """Reads nothing unless told to. `delayed_ack_us` replaces the stack's own time."""

    control: str
    delayed_ack_us: int

    def on_start(self, worker: Any) -> None:
        self.worker = worker
        self.flows: dict[str, Flow] = {}
        worker.memory.record.delack_us = self.delayed_ack_us
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(self.control)
        threading.Thread(target=self._listen, daemon=True).start()

    def on_stop(self) -> None:
        self.connection.close()

    def _listen(self) -> None:
        for line in self.connection.makefile():
            self.worker.call_soon_threadsafe(self._obey, json.loads(line))

    # -- orders

    def _obey(self, order: dict[str, Any]) -> None:
        number, op, name = order.pop("id"), order.pop("op"), order.pop("flow")

        def answer(**fields: Any) -> None:
            """Answer when what was asked of the stack is done: others may turn the core before this thread does again."""
            self.worker.channel.execute()
            self.connection.sendall(json.dumps({"id": number, **fields}).encode() + b"\n")

        flow = self.flows.setdefault(name, Flow(name))
        getattr(self, f"do_{op}")(flow, answer, **order)

    def _when(self, flow: Flow, ready: Callable[[], object], answer: Callable[[], None], seconds: float) -> None:
        """Call `answer` once `ready()` holds, or when so many seconds have passed."""
        done = False

        def look(late: bool = False) -> bool:
            nonlocal done
            if not done and (late or ready()):
                done = True
                answer()
            return done

        if not look():
            flow.waiting.append(look)
            self.worker.call_later(seconds, look, True)

    def _look(self, flow: Flow) -> None:
        flow.waiting = [look for look in flow.waiting if not look()]

    def _tell(self, flow: Flow, answer: Answer, tell: Callable[[mpserve.LwSocket], object]) -> None:
        """Have the socket do something, unless it is over."""
        if flow.sock is None:
            answer(said=flow.end or "no connection")
            return
        try:
            tell(flow.sock)
        except OSError as error:
            answer(said=error.strerror)
        else:
            answer()

    def do_connect(self, flow: Flow, answer: Answer) -> None:
        address, _, port = flow.name.partition(":")
        flow.sock = self.worker.connect((address, int(port)), flow)
        answer()

    def do_outcome(self, flow: Flow, answer: Answer, seconds: float) -> None:
        """How a connect went."""

        def tell() -> None:
            answer(said=flow.end or ("connected" if flow.is_there else "pending"))

        self._when(flow, lambda: flow.is_there or flow.end, tell, seconds)

    def do_accepted(self, flow: Flow, answer: Answer) -> None:
        """The connection is there."""

        def tell() -> None:
            answer(**({} if flow.is_there else {"said": "no connection"}))

        self._when(flow, lambda: flow.is_there, tell, PATIENCE)

    def do_read(self, flow: Flow, answer: Answer, count: int, seconds: float) -> None:
        """All that there is, and how the stream ended if that is less than `count`, or if `count` is 0."""
        if flow.sock is not None:
            flow.sock.resume()

        def tell() -> None:
            if flow.sock is not None:
                flow.sock.pause()
            is_short = len(flow.data) < count or count == 0
            answer(data=flow.data.hex(), end=(flow.end or "no more") if is_short else "")
            flow.data.clear()

        self._when(flow, lambda: flow.end or len(flow.data) >= count > 0, tell, seconds)

    def do_write(self, flow: Flow, answer: Answer, data: str) -> None:
        self._tell(flow, answer, lambda sock: sock.write(bytes.fromhex(data)))

    def do_set(self, flow: Flow, answer: Answer, level: int, name: int, value: int | str) -> None:
        plain = bytes.fromhex(value) if isinstance(value, str) else value
        self._tell(flow, answer, lambda sock: sock.setsockopt(level, name, plain))

    def do_shutdown(self, flow: Flow, answer: Answer) -> None:
        self._tell(flow, answer, lambda sock: sock.shutdown())

    def do_close(self, flow: Flow, answer: Answer) -> None:
        self._tell(flow, answer, lambda sock: sock.close())

    def do_abort(self, flow: Flow, answer: Answer) -> None:
        self._tell(flow, answer, lambda sock: sock.abort())

    # -- callbacks

    def on_accept(self, sock: mpserve.LwSocket) -> None:
        name = "{}:{}".format(*sock.peername)
        flow = self.flows.setdefault(name, Flow(name))
        if flow.is_there:  # the same four-tuple again
            flow = self.flows[name] = Flow(name)
        flow.sock, sock.cookie = sock, flow
        self.on_connect(sock)

    def on_connect(self, sock: mpserve.LwSocket) -> None:
        sock.cookie.is_there = True
        sock.pause()
        self._look(sock.cookie)

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        sock.cookie.data += data
        self._look(sock.cookie)

    def on_eof(self, sock: mpserve.LwSocket) -> None:
        sock.cookie.end = "eof"
        self._look(sock.cookie)

    def on_close(self, sock: mpserve.LwSocket, reason: Reason) -> None:
        flow = sock.cookie
        flow.sock, flow.end = None, ENDS.get(reason, reason.name.lower())
        self._look(flow)
