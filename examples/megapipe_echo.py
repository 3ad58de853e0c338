"""The event loop of the MegaPipe paper (OSDI '12, listing 1), an echo: accept, read, write what was read, read again.

    python examples/megapipe_echo.py --device veth --ip 10.9.0.2/24 --port 7

Then, on the same machine: nc 10.9.0.2 7
"""

import argparse

import mpserve
from mpserve import Kind

READ_BYTES = 65_536


class Connection:
    """The cookie of a connection: comes with each of its completions."""

    handle = 0
    echoed = 0


class Echo:
    """A channel, a listener, and what to do about each completion."""

    def __init__(self, channel: mpserve.Channel, port: int) -> None:
        self.channel = channel
        self.listener = channel.register(channel.listen(("", port)))
        channel.accept(self.listener, count=64)

    def turn(self, timeout: float | None = None) -> None:
        """One pass of the event loop."""
        for event in self.channel.dispatch(timeout):
            if event.kind == Kind.ACCEPT:
                self.accepted(event)
            elif event.kind == Kind.READ and event.result > 0:
                self.channel.write(event.handle, event.data)
            elif event.kind == Kind.WRITE and event.result >= 0:
                event.cookie.echoed += event.result
                self.channel.read(event.handle, READ_BYTES)
            else:  # the end of the stream, or an error
                self.channel.close(event.handle)

    def accepted(self, event: mpserve.Completion) -> None:
        connection = Connection()
        connection.handle = self.channel.register(event.endpoint, cookie=connection)
        self.channel.read(connection.handle, READ_BYTES)
        self.channel.accept(self.listener)  # one more in place of this one


def main() -> None:
    parser = argparse.ArgumentParser(description="Echo through a MegaPipe channel.")
    parser.add_argument("--device", default="veth")
    parser.add_argument("--ip", default="10.9.0.2/24")
    parser.add_argument("--port", type=int, default=7)
    arguments = parser.parse_args()
    with mpserve.Channel(device=arguments.device, ip=arguments.ip) as channel:
        echo = Echo(channel, arguments.port)
        print(f"serving tcp://{arguments.ip.partition('/')[0]}:{arguments.port}", flush=True)
        while True:
            echo.turn()


if __name__ == "__main__":
    main()
