"""`--device kernel`: what it is called, and which settings mean nothing there. Each is refused with one line."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Any

from mpserve.dataplane.errors import SetupError

DESCRIPTION = "kernel sockets, not the stack"
HONOURED_LIMITS = ("max_connections", "accept_queue", "event_batch", "rcvbuf_bytes", "sndbuf_bytes", "fin_wait_seconds")
_REFUSED = {
    "ip": (
        "--ip",
        "the kernel's own addresses are served; leave it out, or type --listen ADDRESS:PORT for one of them",
    ),
    "gateway": ("--gateway", "the kernel has its own routes; leave it out"),
    "routes": ("--route", "the kernel has its own routes; leave it out"),
    "rebalance": ("--rebalance", "the kernel spreads connections itself; leave it out"),
    "hugepages": ("--hugepages", "no DPDK is there to use them; leave it out"),
    "take_over": ("--take-over", "no interface is taken; leave it out"),
    "impair": ("--impair", "no frames pass through; leave it out, or type tc qdisc add dev lo root netem loss 1%"),
    "record": ("--record", "no frames pass through; leave it out, or type tcpdump -w FILE"),
    "publish": ("--publish", "kernel sockets are reached as they are; leave it out, or type --listen 127.0.0.1:PORT"),
}
_HARMLESS = (None, False, "auto", "off", ())  # settings that ask for nothing


def check(given: Mapping[str, Any], limits: Mapping[str, Any]) -> None:
    """Raises SetupError for a setting (by its name in Config) or a limit that kernel sockets can't honour."""
    for name, (flag, instead) in _REFUSED.items():
        if given.get(name) not in _HARMLESS:
            raise SetupError(f"--device kernel has no {flag}: {instead}")
    for name in limits:
        if name not in HONOURED_LIMITS:
            honoured = ", ".join(HONOURED_LIMITS)
            raise SetupError(f"--device kernel has no limit {name}: the kernel has its own; there are {honoured}")


def check_ports_are_free(listeners: Iterable[tuple[str, int]]) -> None:
    """Several workers share their ports, and by that with any other server of the same user: SetupError if there is one."""
    for address, port in listeners:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address, port))
                sock.listen()
            except OSError as error:
                where = f"--listen {address}:{port}"
                raise SetupError(f"{where}: {error.strerror}: choose another port or address") from None
