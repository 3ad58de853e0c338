"""A kernel interface behind a port: MAC and MTU reach it, and a frame from it wakes a sleeper."""

import contextlib
import ctypes
import select
import socket

import pytest

pytestmark = [pytest.mark.dpdk, pytest.mark.root]

INTERFACE = "mpsttap"


@pytest.fixture
def open_tap(start, own_network):
    def open_port(**options):
        own_network()
        return configured(start, **options)

    return open_port


def configured(start, **options):
    from pydpdk import Mempool, Port

    start(f"net_tap0,iface={INTERFACE}")
    port = Port.by_name("net_tap0")
    port.configure(**options)
    port.setup_rx_queue(0, Mempool.create("frames", 1023))
    port.setup_tx_queue(0)
    port.start()
    return port


def test_mac_and_mtu(open_tap):
    port = open_tap()
    port.set_mac(bytes.fromhex("020000000009"))
    assert port.mac == bytes.fromhex("020000000009")
    port.set_mtu(1400)
    assert port.mtu == 1400
    assert port.info().if_index == socket.if_nametoindex(INTERFACE)
    assert "TCP_CKSUM" in port.info().tx_offloads
    port.stop()


def test_queues_stop_and_start(open_tap):
    port = open_tap()
    port.stop_rx_queue(0)
    port.start_rx_queue(0)
    port.stop_tx_queue(0)
    port.start_tx_queue(0)


def test_frame_wakes_the_sleeper(open_tap):
    from pydpdk import symbols

    port = open_tap(rx_interrupts=True)
    rx_burst = ctypes.CFUNCTYPE(*[ctypes.c_int64] * 5)(symbols.address("pydpdk_rx_burst"))
    mbufs = (ctypes.c_int64 * 32)()
    while rx_burst(port.port_id, 0, ctypes.addressof(mbufs), 32):
        pass
    with contextlib.closing(select.epoll()) as sleeper:
        sleeper.register(port.rx_interrupt_fd(), select.EPOLLIN)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as packet:
            packet.bind((INTERFACE, 0))
            packet.send(b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x88\xb5" + bytes(46))
        assert sleeper.poll(5)
    assert rx_burst(port.port_id, 0, ctypes.addressof(mbufs), 32) >= 1
