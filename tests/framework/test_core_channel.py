"""`CoreChannel.listen`: what a passive OPEN may not do to another (RFC 9293 section 3.9.1.1)."""

import errno

import pytest

import mpserve

pytestmark = pytest.mark.on_kernel_sockets


class Names(mpserve.Handler):
    def on_start(self, worker):
        self.worker = worker

    def on_accept(self, sock):
        sock.write(b"%d" % sock.sockname[1])


def test_a_second_listener_of_a_port_is_refused_and_the_first_goes_on(mpserve_host):
    handler = Names()
    host = mpserve_host(handler)
    with pytest.raises(OSError) as raised:
        handler.worker.channel.listen(host.port)
    assert raised.value.errno == errno.EADDRINUSE
    client = host.connect()
    host.settle()
    assert client.recv() == b"%d" % host.port


@pytest.mark.stack_only
def test_one_of_the_address_beside_one_of_any_is_another(mpserve_host):
    handler = Names()
    host = mpserve_host(handler)
    number = handler.worker.channel.listen(7, host.ip)
    with pytest.raises(OSError):
        handler.worker.channel.listen(7, host.ip)
    host.connect()
    host.settle()
    assert handler.worker.memory.arrays["conns"].listener.max() == number
