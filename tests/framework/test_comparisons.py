"""What many cores are compared with: `--limit handles=fd`, and what `accept=shared` and `--rebalance` refuse."""

import os
import resource

import pytest

import mpserve
from mpserve.dataplane.device import parse_device
from mpserve.dataplane.errors import SetupError
from mpserve.dataplane.limits import Limits
from mpserve.framework import preflight
from mpserve.framework.config import make_config
from mpserve.testing.host import Host


class Echo(mpserve.Handler):
    def on_data(self, sock, data):
        sock.write(data)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_descriptor_for_each_connection():
    host = Host(Echo(), handles="fd", max_connections=16)
    before = descriptors()
    clients = [host.connect() for _ in range(3)]
    assert descriptors() == before + 3
    for client in clients:
        client.send(b"hello")
        host.settle()
        assert client.recv() == b"hello"
        client.close()
    host.settle()
    assert descriptors() == before
    host.connect().reset()
    host.settle()
    assert descriptors() == before
    host.stop()


def test_lwsockets_have_none():
    host = Host(Echo(), max_connections=16)
    before = descriptors()
    host.connect()
    assert descriptors() == before
    host.stop()


def test_no_descriptor_is_no_connection():
    """As with a full table: the handshake is not complete until there is one."""
    host = Host(Echo(), handles="fd", max_connections=16)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        client = host.connect()
        client.send(b"hello")
        host.settle()
        assert host.worker.stats["drop_connections_full"] > 0 and host.worker.stats["connections_accepted"] == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    host.advance(4)
    assert client.recv() == b"hello"
    host.stop()


@pytest.mark.parametrize(
    ("settings", "workers", "what"),
    [
        ({"rebalance": True}, 1, "--rebalance is for several workers, and there is one: type --cores"),
        ({"limits": {"accept": "shared"}}, 1, "--limit accept=shared is for several workers"),
        ({"limits": {"accept": "shared"}, "listen": ":7@0"}, 2, "accept=shared has all cores accept: type --listen :7"),
        ({"limits": {"handles": "fd"}, "max_connections": 1 << 22}, 1, "takes a descriptor a connection"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, workers, what):
    with pytest.raises(SetupError, match=what):
        preflight.check(make_config(settings | {"device": "ring"}), parse_device("ring"), workers)


@pytest.mark.parametrize("limits", [{"accept": "both"}, {"handles": "sockets"}])
def test_unknown_choices_are_refused(limits):
    with pytest.raises(SetupError, match="there are"):
        Limits(**limits)
