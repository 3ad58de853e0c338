"""Echo that remembers: each line comes back with its number, and at the end a count of what was said.

Run it and talk to it:

    mpserve run examples/echo.py:Echo --listen :7
    nc ADDRESS 7
"""

from dataclasses import dataclass

import mpserve


@dataclass
class Conversation:
    """What is known of one connection; it travels in the socket's cookie."""

    lines: int = 0
    heard: int = 0
    unfinished: bytes = b""


class Echo(mpserve.Handler):
    longest_line: int = 4096

    def on_accept(self, sock: mpserve.LwSocket) -> None:
        sock.cookie = Conversation()

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        talk: Conversation = sock.cookie
        talk.heard += len(data)
        *lines, talk.unfinished = (talk.unfinished + data).split(b"\n")
        if len(talk.unfinished) > self.longest_line:
            sock.write(b"that line is too long\n")
            sock.close()
            return
        replies = []
        for line in lines:
            talk.lines += 1
            replies.append(b"%d: %b\n" % (talk.lines, line.rstrip(b"\r")))
        if not sock.write(b"".join(replies)):
            sock.pause()  # read no faster than the peer does

    def on_writable(self, sock: mpserve.LwSocket) -> None:
        sock.resume()

    def on_eof(self, sock: mpserve.LwSocket) -> None:
        talk: Conversation = sock.cookie
        sock.write(b"%d lines, %d bytes\n" % (talk.lines, talk.heard))
        sock.close()
