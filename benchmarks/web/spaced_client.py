"""One keep-alive connection, one request every few milliseconds: the latency of a server that has to be woken.

usage: spaced_client.py ADDRESS PORT SECONDS SPACING; prints one line of JSON. Standard library only.
"""

import json
import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nHost: benchmark\r\n\r\n"
BODY = 64


def read_reply(connection: socket.socket) -> None:
    received = b""
    while True:
        data = connection.recv(4096)
        if not data:
            raise SystemExit("the server closed the connection")
        received += data
        head, blank_line, body = received.partition(b"\r\n\r\n")
        if blank_line and len(body) >= BODY:
            return


def main() -> None:
    address, port, seconds, spacing = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    connection = socket.create_connection((address, port), timeout=5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    latencies = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        sent = time.perf_counter_ns()
        connection.sendall(REQUEST)
        read_reply(connection)
        latencies.append((time.perf_counter_ns() - sent) // 1000)
        time.sleep(spacing)
    elapsed = time.perf_counter() - started
    latencies.sort()
    quantile = {f"p{q}_us": latencies[min(len(latencies) - 1, len(latencies) * q // 100)] for q in (50, 90, 99)}
    summary = {"requests": len(latencies), "duration_us": int(elapsed * 1e6), "max_us": latencies[-1], "errors": 0}
    print("JSON", json.dumps(summary | quantile))


if __name__ == "__main__":
    main()
