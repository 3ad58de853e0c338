"""Both directions of one connection at once, over a wire that loses, doubles and reorders frames."""

import hashlib
import random

import pytest

import mpserve
from mpserve.dataplane.jit import JIT

BYTES = 2_500_000
pytestmark = pytest.mark.skipif(
    not JIT, reason="too slow as plain Python, and a channel's payload is in no known region"
)


class Echo(mpserve.Handler):
    """Sends back what it gets, and stops reading while the peer doesn't."""

    def on_data(self, sock, data):
        if not sock.write(data):
            sock.pause()

    def on_writable(self, sock):
        sock.resume()


@pytest.mark.parametrize("loss, reordering", [(0.0, 0.05), (0.02, 0.02)])
def test_an_echo_of_a_whole_stream(mpserve_host, loss, reordering):
    data = random.Random(3).randbytes(BYTES)
    host = mpserve_host(Echo(), loss=loss, reordering=reordering, duplication=0.02, seed=11)
    client = host.connect()
    client.send(data)
    client.close()
    received = bytearray()
    while not client.eof and host.now < 2000:
        host.advance(0.05)
        received += client.recv()
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
    host.advance(5.0)
    assert not host.worker.memory.arrays["flows"].value.any()
    record = host.record
    assert (record.free_slot_count, record.free_block_count) == (record.connections, record.block_count)
