"""Network namespaces of a test's own, in which nothing collides or stays."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def switch_namespace(descriptor: int) -> None:
    """Move this thread, and the processes it starts from now on, into the network namespace behind `descriptor`."""
    if LIBC.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def new_namespace() -> Iterator[int]:
    """A new network namespace for this thread until the end of the block; its descriptor. Its interfaces end with it."""
    outer = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if LIBC.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        inner = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            yield inner
        finally:
            switch_namespace(outer)
            os.close(inner)
    finally:
        os.close(outer)


@contextlib.contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """This thread in another network namespace for a while."""
    outer = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    switch_namespace(descriptor)
    try:
        yield
    finally:
        switch_namespace(outer)
        os.close(outer)


@contextlib.contextmanager
def borrowed_pair(name: str, peer: str, address: str) -> Iterator[int]:
    """A veth pair as any user makes it, the kernel's default offloads on: `name` stays in this namespace, `peer` goes with
    `address` ("10.31.0.1/24") to one of its own. The descriptor of that one."""
    outer = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with new_namespace() as far:
        for command in (
            f"link add {peer} type veth peer name {name}",
            f"link set {name} netns /proc/{os.getpid()}/fd/{outer}",
            f"address add {address} dev {peer}",
            f"link set {peer} up",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        try:
            with inside(outer):
                yield far
        finally:  # at once: a namespace's own end comes later, and the next pair may have the same name
            subprocess.run(["ip", "link", "delete", peer], check=False, capture_output=True)
    os.close(outer)
