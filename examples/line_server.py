"""A server of one-line questions: `time`, `uptime`, `count`, `echo WORDS`, `quit`.

    mpserve run examples/line_server.py:LineServer --listen :7777

The codec cuts the stream into lines in compiled code, a batch at a time; a line that is too long ends its connection.
"""

import time

import mpserve


class LineServer(mpserve.Handler):
    codec = mpserve.Lines(max=1024)

    idle_seconds: float = 60.0

    def on_start(self, worker: mpserve.Worker) -> None:
        self.worker, self.started, self.answered = worker, worker.now, 0

    def on_accept(self, sock: mpserve.LwSocket) -> None:
        sock.set_timeout(self.idle_seconds)

    def on_data(self, sock: mpserve.LwSocket, data: bytes) -> None:
        if sock.closed:  # lines that came behind `quit`
            return
        word, _, rest = data.strip().partition(b" ")
        if word.lower() == b"quit":
            sock.write(b"bye\n")
            sock.close()
            return
        self.answered += 1
        sock.write(self.answer(word.lower(), rest) + b"\n")

    def answer(self, word: bytes, rest: bytes) -> bytes:
        match word:
            case b"time":
                return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()).encode()
            case b"uptime":
                return b"%.1f" % (self.worker.now - self.started)
            case b"count":
                return b"%d" % self.answered
            case b"echo":
                return rest
        return b"? time, uptime, count, echo WORDS, quit"
