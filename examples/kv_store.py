"""A tiny key-value store: `set KEY VALUE`, `get KEY`, `del KEY`, a line each; every line has one of answer.

    mpserve run examples/kv_store.py:KeyValueStore --listen :6000 --set most_keys=100000

`on_batch` gets the lines of a whole turn at once. One worker is one store, so there is one by default: another core's has its own.
"""

import mpserve


class KeyValueStore(mpserve.Handler):
    codec = mpserve.Lines(max=64 * 1024)
    default_workers = 1

    most_keys: int = 1_000_000

    def on_start(self, worker: mpserve.Worker) -> None:
        self.values: dict[bytes, bytes] = {}

    def on_batch(self, items: list[tuple[mpserve.LwSocket, bytes]]) -> None:
        for sock, line in items:
            if not sock.write(self.answer(line)):
                sock.pause()  # a peer that asks and doesn't read: no more of its questions for now

    def on_writable(self, sock: mpserve.LwSocket) -> None:
        sock.resume()

    def answer(self, line: bytes) -> bytes:
        word, _, rest = line.partition(b" ")
        key, _, value = rest.partition(b" ")
        if not key:
            return b"error: type set KEY VALUE, get KEY or del KEY\n"
        match word:
            case b"get":
                found = self.values.get(key)
                return b"none\n" if found is None else b"value %b\n" % found
            case b"set":
                if len(self.values) >= self.most_keys and key not in self.values:
                    return b"error: full\n"
                self.values[key] = value
                return b"ok\n"
            case b"del":
                return b"none\n" if self.values.pop(key, None) is None else b"ok\n"
        return b"error: unknown command\n"
