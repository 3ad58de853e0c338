"""Ethernet II: destination(6) source(6) type(2). A MAC is an int64 of 48 bits."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load16, load32, store16, store32

HEADER = 14
TYPE_IPV4 = 0x0800
TYPE_ARP = 0x0806
BROADCAST = 0xFFFFFFFFFFFF


@compiled
def load_mac(address):
    return (load32(address) << 16) | load16(address + 4)


@compiled
def store_mac(address, mac):
    store32(address, mac >> 16)
    store16(address + 4, mac)


@compiled
def is_group(mac):
    """Broadcast or multicast."""
    return mac & 0x010000000000 != 0


@compiled
def destination(frame):
    return load_mac(frame)


@compiled
def source(frame):
    return load_mac(frame + 6)


@compiled
def ethertype(frame):
    return load16(frame + 12)


@compiled
def write(frame, to, source_mac, kind):
    store_mac(frame, to)
    store_mac(frame + 6, source_mac)
    store16(frame + 12, kind)
