"""Two workers on a veth in a network namespace of their own, whose kernel end has the peers."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mpserve.cli.bench.wires import two_cores
from mpserve.dataplane import kernel_link
from mpserve.dataplane.errors import SetupError
from mpserve.framework.server import Server

CLONE_NEWNET = 0x40000000
SERVER_IP, PEER_IP = "10.97.0.2", "10.97.0.1"  # mpserve gives the kernel's end the first address that is free
DEVICE = "veth,driver=af_packet"  # packet sockets: the hash that chooses the queue is known
HANDLERS = Path(__file__).with_name("handlers.py")
_LIBC = ctypes.CDLL(None, use_errno=True)


def check_root() -> None:
    """SetupError if this process can't have a network namespace of its own."""
    if os.geteuid() != 0:
        raise SetupError("real workers on a veth of their own need root: type sudo mpserve bench cores ...")


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """This thread, and what it starts, in a network namespace of its own. What is made there ends with it."""
    outer = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _LIBC.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        try:
            kernel_link.ip("link", "set", "lo", "up")
            kernel_link.sysctl("net/ipv6/conf/default/disable_ipv6", "1")
            yield
        finally:
            if _LIBC.setns(outer, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(outer)


@contextlib.contextmanager
def two_workers(handler: str, **settings: Any) -> Iterator[Server]:
    """A class of `handlers` on two cores, serving; `settings` are Server's."""
    server = Server(
        f"{HANDLERS}:{handler}",
        device=DEVICE,
        ip=f"{SERVER_IP}/24",
        cores=",".join(map(str, two_cores())),
        say=lambda text: None,
        config=os.devnull,  # not the mpserve.toml of whoever measures
        slow_callback=0,
        **settings,
    )
    with server:
        yield server
