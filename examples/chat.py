"""A chat room: what one says, all others hear, and now and then the room says how many are in it.

    mpserve run examples/chat.py:Chat --listen :7000 --set announce_every=30
    nc ADDRESS 7000

One worker is one room, so there is one by default: connections of another core would not be in it.
"""

from dataclasses import dataclass

import mpserve

LONGEST_LINE = 1024


@dataclass
class Guest:
    name: bytes = b""
    unfinished: bytes = b""
    deaf: bool = False
    """The guest's connection is full: it misses what is said until it has caught up."""


class Chat(mpserve.Handler):
    default_workers = 1

    announce_every: float = 60.0

    def on_start(self, worker: mpserve.Worker) -> None:
        self.worker = worker
        self.room: set[mpserve.LwSocket] = set()
        worker.call_later(self.announce_every, self.announce)

    def on_accept(self, sock: mpserve.LwSocket) -> None:
        sock.cookie = Guest()
        sock.write(b"What is your name?\n")

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        guest: Guest = sock.cookie
        *lines, guest.unfinished = (guest.unfinished + data).split(b"\n")
        for line in lines:
            self.hear(sock, guest, line.strip())
        if len(guest.unfinished) > LONGEST_LINE:
            sock.abort()

    def hear(self, sock: mpserve.LwSocket, guest: Guest, line: bytes) -> None:
        """The first line is the guest's name; the others are for everybody else."""
        if not line:
            return
        if guest.name:
            self.tell(b"%b: %b\n" % (guest.name, line), but=sock)
        else:
            guest.name = line[:20]
            sock.write(b"%d others are here.\n" % len(self.room))
            self.tell(b"* %b comes in\n" % guest.name, but=sock)
            self.room.add(sock)

    def tell(self, text: bytes, but: mpserve.LwSocket | None = None) -> None:
        """Write to everybody who can take it. A socket may be used in the callback of another."""
        for sock in self.room:
            guest: Guest = sock.cookie
            if sock is not but and not sock.closed and not guest.deaf:
                guest.deaf = not sock.write(text)

    def on_writable(self, sock: mpserve.LwSocket) -> None:
        sock.cookie.deaf = False

    def on_close(self, sock: mpserve.LwSocket, reason: mpserve.Reason) -> None:
        if sock in self.room:
            self.room.remove(sock)  # keep no socket that is over: its object is used again
            self.tell(b"* %b leaves\n" % sock.cookie.name)

    def announce(self) -> None:
        """A timer is for once: it is set again here."""
        if self.room:
            self.tell(b"* %d in the room\n" % len(self.room))
        self.worker.call_later(self.announce_every, self.announce)
