"""ARP for IPv4 over Ethernet, RFC 826."""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load16, load32, load64, store16, store32, store64
from mpserve.dataplane.wire.ethernet import load_mac, store_mac

LENGTH = 28
REQUEST = 1
REPLY = 2
_ETHERNET_IPV4 = 0x0001080006040000  # hardware type, protocol type, address lengths


@compiled
def is_ethernet_ipv4(arp):
    return (load64(arp) >> 16) == (_ETHERNET_IPV4 >> 16)


@compiled
def operation(arp):
    return load16(arp + 6)


@compiled
def sender_mac(arp):
    return load_mac(arp + 8)


@compiled
def sender_address(arp):
    return load32(arp + 14)


@compiled
def target_address(arp):
    return load32(arp + 24)


@compiled
def write(arp, what, from_mac, from_address, to_mac, to_address):
    store64(arp, _ETHERNET_IPV4)
    store16(arp + 6, what)
    store_mac(arp + 8, from_mac)
    store32(arp + 14, from_address)
    store_mac(arp + 18, to_mac)
    store32(arp + 24, to_address)
