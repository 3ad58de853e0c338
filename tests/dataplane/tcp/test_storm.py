"""Anything at any time: random segments, commands, pauses and full tables. Nothing leaks, no event comes out of turn."""

import random

import pytest
from peer import MSS_1460, SCALE_7, Peer, TestedStack, Watch, pattern

from mpserve.dataplane.events import Command
from mpserve.dataplane.jit import JIT
from mpserve.testing.stack import listen

SEEDS = range(25 if JIT else 4)
STEPS = 300 if JIT else 120
TINY = dict(
    max_connections=4, syn_backlog=2, accept_queue=2, time_wait=2, neighbors=4, blocks=24, event_batch=3,
    rcvbuf_bytes=8192, sndbuf_bytes=4096, retries=2, syn_ack_retries=1, fin_wait_seconds=5.0,
)  # fmt: skip


def random_segment(draw: random.Random, peer: Peer) -> bytes:
    """A segment that fits, nearly fits, or doesn't."""
    flags = draw.choice(["S", "A", "A", "A", "A", "PA", "FA", "R", "RA", "SA", "F", "SF", "", "UAP"])
    near = draw.choice([0, 0, 0, 0, 1, -1, 100, -100, 1460, 8000, 70_000, -70_000])
    length = draw.choice([0, 0, 1, 100, 1460, 5000]) if "S" not in flags else 0
    ack = peer.rcv_nxt + draw.choice([0, 0, 0, 0, 1, -1, 1000, 100_000])
    if "S" in flags and draw.random() < 0.7:
        peer.rcv_nxt, peer.snd_nxt = 0, draw.randrange(1 << 32)
        near = 0
    seq = peer.snd_nxt + near
    keep = peer.snd_nxt
    frame = peer.frame(
        flags, seq=seq, ack=ack, data=pattern(length), window=draw.choice([0, 1, 1000, 65535]),
        options=draw.choice([b"", MSS_1460, MSS_1460 + SCALE_7]) if "S" in flags else b"",
    )  # fmt: skip
    if near != 0 and draw.random() < 0.9:
        peer.snd_nxt = keep
    return frame


def step(draw: random.Random, stack: TestedStack, peers: list[Peer], open_handles: list[int]) -> None:
    what = draw.random()
    if what < 0.12:
        connect(draw, stack, draw.choice(peers))
    elif what < 0.5:
        frames = [random_segment(draw, draw.choice(peers)) for _ in range(draw.choice([1, 1, 1, 2, 6]))]
        for frame in frames:
            stack.wire.deliver(frame, draw.choice([1, 1, 2]))
    elif what < 0.8 and open_handles:
        op = draw.choice([op for op in Command if op not in (Command.ACCEPT, Command.ABORT)] + [Command.WRITE] * 4)
        payload = (
            pattern(draw.choice([0, 1, 500, 3000])) if op == Command.WRITE else draw.choice([0, 100_000, 2_000_000])
        )
        stack.command(op, draw.choice(open_handles) + draw.choice([0, 0, 0, 0, 1 << 24]), payload)
        if draw.random() < 0.05:
            stack.command(Command.ABORT, draw.choice(open_handles))
    elif what < 0.85:
        stack.command(Command.ACCEPT, draw.choice([0, 1, 2]), draw.choice([0, 1, 3]))
    else:
        stack.run(stack.at() + draw.choice([100, 5000, 50_000, 300_000, 3_000_000]))
    if draw.random() < 0.7:
        stack.run(stack.at())


def connect(draw: random.Random, stack: TestedStack, peer: Peer) -> None:
    """A handshake as it should be, whatever the flow was before."""
    peer.iss, peer.snd_nxt, peer.rcv_nxt = draw.randrange(1 << 32), 0, 0
    stack.give(peer.frame("S", options=draw.choice([b"", MSS_1460 + SCALE_7])))
    follow([peer])
    stack.wire.deliver(peer.frame("A", data=draw.choice([b"", b"hello"])))


def follow(peers: list[Peer]) -> None:
    """Each peer acknowledges, next time, what it has seen."""
    for peer in peers:
        for _, segment in peer.inbox:
            if "S" in segment.flags:
                peer.stack_iss, peer.rcv_nxt = segment.seq, 1
                peer.snd_nxt = (segment.ack - peer.iss) % 2**32
            else:
                peer.rcv_nxt = (segment.seq - peer.stack_iss + len(segment.payload) + ("F" in segment.flags)) % 2**32
        peer.inbox.clear()


@pytest.mark.parametrize("seed", SEEDS)
def test_storm(seed):
    draw = random.Random(seed)
    stack = TestedStack(**TINY)
    stack.answer_arp = draw.choice([None, "*"])
    listen(stack.core, 80, accepts=draw.choice([0, 1]))
    peers = [Peer(stack, port=1000 + n, to_port=draw.choice([7, 7, 80])) for n in range(6)]
    watch = Watch(stack)
    for _ in range(STEPS):
        step(draw, stack, peers, watch.look())
        follow(peers)
    assert stack.leaks() == []
    assert watch.look() == [], "every accepted connection has had its CLOSED"
    assert len(watch.ended) > STEPS // 60
    stack.close()
