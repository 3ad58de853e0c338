"""Commands: stale and senseless ones are counted and harmless, batches are executed in order."""

import pytest
from peer import Peer, pattern

from mpserve.dataplane.events import Command, Event
from mpserve.dataplane.layout import COMMAND_ROWS

OF_A_HANDLE = [op for op in Command if op not in (Command.ACCEPT, Command.STOP_LISTENING)]


@pytest.mark.parametrize("op", OF_A_HANDLE)
@pytest.mark.parametrize("handle", [0, (1 << 24) - 1, 5 << 24, (1 << 55) - 1, -1])
def test_handles_of_nothing_are_stale(stack, op, handle):
    stack.ask(op, handle, 1)
    assert stack.counter("stale_commands") == 1


@pytest.mark.parametrize("op", OF_A_HANDLE)
def test_a_handle_never_given_is_harmless(stack, op):
    stack.ask(op, 1 << 24 | 3, 1)
    assert stack.events == [] and stack.other_frames == []


def test_writes_of_a_batch_become_full_segments(stack):
    peer = Peer(stack).establish()
    data = pattern(3000)
    for start in range(0, 3000, 100):
        stack.command(Command.WRITE, peer.handle, data[start : start + 100])
    left = peer.drain()
    assert [seen["length"] for seen in left] == [1460, 1460, 80]
    assert b"".join(seen["data"] for seen in left) == data
    assert [seen["flags"] for seen in left] == ["A", "A", "PA"]


def test_a_whole_table_of_commands(stack):
    peer = Peer(stack).establish()
    for _ in range(COMMAND_ROWS):
        stack.command(Command.WRITE, peer.handle, b"x")
    assert sum(seen["length"] for seen in peer.drain()) == COMMAND_ROWS
    assert stack.counter("commands") == COMMAND_ROWS


def test_commands_of_many_connections_in_order(stack):
    peers = [Peer(stack).establish() for _ in range(4)]
    for round_ in range(3):
        for peer in peers:
            stack.command(Command.WRITE, peer.handle, bytes([round_, peer.slot]))
    stack.run(0)
    for peer in peers:
        peer.recv(data=b"".join(bytes([n, peer.slot]) for n in range(3)))


def test_pause_and_resume_in_one_batch(stack):
    peer = Peer(stack).establish()
    stack.command(Command.PAUSE, peer.handle)
    stack.command(Command.RESUME, peer.handle)
    peer.send(0, data=b"x")
    assert peer.kinds() == [Event.ACCEPT, Event.READ]
