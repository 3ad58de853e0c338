"""For comparison alone (`--limit handles=fd`): a descriptor of the kernel's for each connection, as a socket has.

What it costs is what lwsockets save (MegaPipe, section 3.4): the lowest free number, a file, an inode, and giving them back. The
descriptor is an unbound socket, the cheapest that has all of these, and carries nothing.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import call2, call3

NONE_WANTED, NO_DESCRIPTOR = -1, -2
AF_UNIX, SOCK_STREAM_CLOEXEC = 1, 1 | 0o2000000  # Linux


@compiled
def open_descriptor(core):
    """A new one; NONE_WANTED where connections are lwsockets, NO_DESCRIPTOR if the kernel has none left for us."""
    if core.open_fd == 0:
        return NONE_WANTED
    fd = call3(core.open_fd, AF_UNIX, SOCK_STREAM_CLOEXEC, 0) & 0xFFFFFFFF  # a C int
    return fd if fd < 1 << 31 else NO_DESCRIPTOR


@compiled
def close_descriptor(core, fd):
    if core.open_fd != 0:
        call2(core.close_fd, fd, 0)
