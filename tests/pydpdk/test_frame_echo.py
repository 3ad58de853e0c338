"""examples/frame_echo.py sends back, over a tap, what the kernel sends."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.dpdk, pytest.mark.root]

EXAMPLE = Path(__file__).parents[2] / "examples" / "frame_echo.py"
INTERFACE = "mpstecho"
ETHERTYPE = 0x88B5  # IEEE 802 local experimental
FRAME = bytes.fromhex("020000000001 020000000002 88b5") + bytes(range(46))


def echoed(seconds):
    """What comes back; tried until the example has made the interface and DPDK has brought it up for good."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)) as packet:
            packet.settimeout(0.2)
            try:
                packet.bind((INTERFACE, 0))
                packet.send(FRAME)
                return packet.recv(2048)
            except OSError:
                time.sleep(0.02)
    return b""


def test_echo_over_a_tap(own_network):
    own_network()
    command = [sys.executable, EXAMPLE, f"net_tap0,iface={INTERFACE}", "2"]
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "0"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as example:
        assert echoed(40) == FRAME[6:12] + FRAME[:6] + FRAME[12:]
        assert re.search(r": [1-9]\d* frames in 2 s\n$", example.communicate(timeout=10)[0])
    assert example.returncode == 0
