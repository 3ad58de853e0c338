"""A target's world: one stack, rewound for each script; a script's steps are done and what must hold is checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peer import SMALL

from fuzz.invariants import broken
from fuzz.peers import Hostile
from fuzz.script import Arguments, decode
from fuzz.stack import FuzzStack
from fuzz.steps import Do
from mpserve.dataplane.events import Command
from mpserve.testing.stack import listen

# Counters that the door alone moves: they must be exactly what its model says.
EXACT = (
    "drop_runt drop_not_ours drop_ethertype drop_oversize drop_arp_malformed drop_ip_malformed drop_ip_checksum "
    "drop_ip_fragment drop_ip_options drop_ip_martian drop_ip_not_ours drop_ip_protocol drop_icmp_malformed "
    "drop_icmp_type drop_tcp_malformed drop_tcp_checksum drop_tcp_options drop_icmp_quote drop_icmp_quote_not_ours "
    "drop_source_group drop_tcp_port_zero"
).split()
EXACT_FRAGMENTS = ["drop_fragment_overlap", "drop_fragment_tiny", "drop_fragment_full", "fragments_received"]
QUIET_SECONDS = 200


class World:
    """`begin` is done once, `steps` are what a script is made of, with `settings` a stack's.

    `is_roomy`: pools are large enough that honest clients must be served in full, whatever the others do.
    """

    def __init__(
        self,
        steps: Sequence[Do],
        begin: Callable[[FuzzStack], None] = lambda stack: None,
        *,
        is_roomy: bool = True,
        **settings: Any,
    ) -> None:
        self.steps, self.is_roomy = steps, is_roomy
        self.stack = FuzzStack(
            gateway="10.9.0.1", **{**SMALL, "rcvbuf_bytes": 16_384, "sndbuf_bytes": 16_384, **settings}
        )
        listen(self.stack.core, 80, accepts=1)
        deferring = self.stack.core.arrays["listeners"][listen(self.stack.core, 81)]
        deferring.defer_ms, deferring.max_segment = 500, 536
        _people(self.stack)
        self.stack.save()
        self.stack.rewind()
        begin(self.stack)
        self._begin = begin

    def run(self, script: bytes) -> None:
        """Do the script. AssertionError, IndexError or BadFrame if something is wrong with the stack."""
        stack = self.stack
        stack.rewind()
        self._begin(stack)
        for number, step in enumerate(decode(script)):
            self.steps[step.op % len(self.steps)](stack, Arguments(step.arguments))
            if number % 8 == 7:
                self.check()
        stack.leave_mbufs(1 << 16)
        stack._rest()
        self.check()
        self._check_counters()
        self._serve_honest()
        for honest in stack.honest:
            honest.client = None  # lest it go on where it was kept waiting
        leaks = stack.leaks()
        assert not leaks, leaks
        assert stack.watch.look() == [], "every connection given has had its CLOSED"

    def check(self) -> None:
        found = broken(self.stack.core)
        assert not found, found
        self.stack.check_edges()

    def _check_counters(self) -> None:
        stack = self.stack
        fragments_too = EXACT_FRAGMENTS if stack.door.reassembly_is_certain else []
        for name in EXACT + fragments_too if stack.door.reassembly_is_certain else []:
            assert stack.counter(name) == stack.expected[name], (
                f"{name}: {stack.counter(name)}, not {stack.expected[name]}"
            )
        flags = stack.counter("drop_tcp_flags") - stack.expected["drop_tcp_flags"]
        assert 0 <= flags <= stack.passed, f"drop_tcp_flags: {flags} more than at the door"
        self._check_replies()

    def _check_replies(self) -> None:
        """No storm: what leaves is bounded by what came, by what was asked for, and by timers' own doings."""
        stack = self.stack
        own = sum(
            map(
                stack.counter,
                "retransmits syn_acks_resent zero_window_probes keepalive_probes tail_loss_probes arp_requests_sent "
                "commands connections_opened connections_timed_out".split(),
            )
        )
        data = stack.counter("bytes_written") // 52
        most = 2 * stack.counter("rx_frames") + own + data + len(stack.peers)
        assert stack.counter("tx_frames") <= most, f"{stack.counter('tx_frames')} frames out, {most} at most"

    def _serve_honest(self) -> None:
        """The hostile connections end; the honest ones must be served to their end."""
        stack = self.stack
        stack.answer_arp = "*"
        for handle, life in stack.lives.items():
            if life.honest is None:
                stack.command(Command.ABORT, handle)
        stack._rest()
        server = stack.honest[-1]
        if server.client is None and server.reason is None and server.syn is not None:
            server.open()
            stack._rest()
        until = stack.at() + QUIET_SECONDS * 1_000_000
        while stack.at() < until and not all(honest.is_served for honest in stack.honest):
            stack.wait(1_000_000)
            if not self.is_roomy and any(honest.reason is not None for honest in stack.honest):
                break
        if self.is_roomy:
            for honest in stack.honest:
                if honest.client is not None:
                    assert honest.is_served and honest.reason is None, f"honest client: {vars(honest)}"
                    assert not honest.client.was_reset, "honest client: reset"


def _people(stack: FuzzStack) -> None:
    """Who sends to the stack: six that may connect, one of them beyond the gateway, and two that the stack connects to."""
    for number, (ip, to_port) in enumerate(
        (("10.9.0.1", 7), ("10.9.0.1", 7), ("10.9.0.4", 80), ("10.9.0.1", 80), ("10.77.0.5", 7), ("10.9.0.4", 81))
    ):
        Hostile(stack, ip=ip, port=1000 + number, to_port=to_port)
    for number in range(2):
        Hostile(stack, ip="10.9.0.3", port=9000 + number, to_port=20_000 + number, is_active=True)
