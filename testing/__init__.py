"""Test handlers in virtual time, with no root, NIC or DPDK.

host = mpserve.testing.Host(Echo())
client = host.connect()
client.send(b"x")
host.advance(1.0)
assert client.recv() == b"x"
"""

from mpserve.testing.channel_host import ChannelHost
from mpserve.testing.client import Client
from mpserve.testing.host import Host

__all__ = ["ChannelHost", "Client", "Host"]
