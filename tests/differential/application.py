"""The application on the tested side, as a script tells it what to do. Each order is a step of the peer's view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from view import View, octets

if TYPE_CHECKING:
    from raw_peer import RawPeer


class App:
    """The application on the tested side, as far as it has to do with one flow."""

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer
        self.written = self._read = 1  # up to which place of the stream

    def _ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        peer = self._peer
        return peer.side.application.ask(op, f"{peer.ip}:{peer.port}", **arguments)

    def _step(self, what: str, op: str, **arguments: Any) -> dict[str, Any]:
        """A step of the view; what the application says to it is part of what is seen."""
        answer: dict[str, Any] = {}
        self._peer.step(f"app: {what}", lambda: answer.update(self._ask(op, **arguments)), timed=False)
        if "said" in answer:
            self._peer.view.saw(f"app: {answer['said']}")
        return answer

    def accepted(self) -> None:
        """Wait until the application has the connection."""
        assert "said" not in self._ask("accepted"), "the application has no connection"

    def connect(self) -> None:
        """Begin a connection: its SYN may have to wait for an answer by ARP."""

        def begin() -> None:
            self._ask("connect")
            self._peer.await_segment()

        self._peer.step("app: connect", begin, timed=False)

    def outcome(self, seconds: float = 3.0) -> None:
        """How the connect went, as a step."""
        self._step("outcome", "outcome", seconds=seconds)

    def write(self, length: int) -> None:
        data = octets(self.written, length)
        self.written += length
        self._step(f"write {length}", "write", data=data.hex())

    def read(self, count: int, seconds: float = 3.0, what: str = "") -> None:
        """Read so many bytes; a stream that ends before, or bytes that are not the peer's, are seen. 0: to its end."""
        what = what or (f"read {count}" if count else "read to the end")
        answer = self._step(what, "read", count=count, seconds=seconds)
        data = bytes.fromhex(answer["data"])
        right = data == octets(self._read, len(data))
        self._read += len(data)
        if len(data) != count or not right:
            self._peer.view.saw(f"app: {len(data)} bytes" + ("" if right else ", not those sent"))
        if answer["end"]:
            self._peer.view.saw(f"app: {answer['end']}")

    def read_what_has_come(self) -> None:
        """Read as many bytes as the tested side has acknowledged."""
        peer = self._peer
        self.read(peer.place + peer.acked - self._read, what="read all")

    def set(self, level: int, number: int, value: int | bytes) -> None:
        """A socket option; no step of the view."""
        plain = value.hex() if isinstance(value, bytes) else value
        answer = self._ask("set", level=level, name=number, value=plain)
        assert "said" not in answer, answer

    def shutdown(self) -> None:
        self._step("shutdown", "shutdown")

    def close(self) -> None:
        self._step("close", "close")

    def abort(self) -> None:
        self._step("abort", "abort")

    def close_quietly(self) -> None:
        """A close that is no step of the view."""
        view, self._peer.view = self._peer.view, View()
        self.close()
        self._peer.view = view
