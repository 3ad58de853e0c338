"""The fuzzer itself: scripts are bytes and back, mutants stay scripts, and what it checks can fail."""

import random
from collections.abc import Callable

import pytest
from peer import MAC

from fuzz import steps
from fuzz.door import Door, parse_options
from fuzz.mutate import mutate, random_script
from fuzz.outgoing import check_outgoing
from fuzz.script import MOST_STEPS, Arguments, Step, decode, encode
from fuzz.stack import FuzzStack
from fuzz.world import World
from mpserve.dataplane.events import SLOT_MASK, Command, Event
from mpserve.testing.segment import BadFrame, Segment, arp_request
from mpserve.testing.stack import StackEvent

STEPS = (steps.near_segment, steps.open_passively, steps.command, steps.wait, steps.honest)
OPEN, WRITE, HONEST = Step(1, b""), Step(2, b""), Step(4, b"")


@pytest.fixture(scope="module")
def world() -> World:
    return World(STEPS, blocks=1024)


def test_a_script_is_bytes_and_back() -> None:
    script = [Step(3, b"abc"), Step(0, b""), Step(255, bytes(255))]
    assert decode(encode(script)) == script


def test_whatever_bytes_are_a_script() -> None:
    draw = random.Random(1)
    for length in range(300):
        assert len(decode(draw.randbytes(length))) <= MOST_STEPS


def test_mutants_are_scripts_and_differ() -> None:
    draw = random.Random(2)
    script = random_script(draw, 5)
    mutants = {mutate(draw, script, random_script(draw, 5), 5) for _ in range(100)}
    assert len(mutants) > 80 and all(encode(decode(mutant)) == mutant for mutant in mutants)


def test_missing_arguments_are_zero() -> None:
    arguments = Arguments(b"\x01\x02\x03")
    assert (arguments.word(), arguments.byte(), arguments.byte(), arguments.near()) == (0x0102, 3, 0, 0)


def test_a_script_is_done_the_same_again(world: World) -> None:
    script = random_script(random.Random(3), len(STEPS))
    counts = []
    for _ in range(2):
        world.run(script)
        counts.append({name: world.stack.counter(name) for name in world.stack.core.counters.dtype.names})
    assert counts[0] == counts[1]


def lose_a_block(stack: FuzzStack) -> None:
    stack.core.record.free_block_count -= 1


def miscount_the_send_buffer(stack: FuzzStack) -> None:
    stack.core.arrays["tcbs"][1].snd_queued += 1


def skip_a_byte(stack: FuzzStack) -> None:
    stack.honest[0].taken += 1


def count_a_drop(stack: FuzzStack) -> None:
    stack.core.counters.drop_runt += 1


def send_too_much(stack: FuzzStack) -> None:
    stack.core.counters.tx_frames += 1000


@pytest.mark.parametrize(
    "harm", [lose_a_block, miscount_the_send_buffer, skip_a_byte, count_a_drop, send_too_much], ids=lambda f: f.__name__
)
def test_what_is_wrong_is_noticed(harm: Callable[[FuzzStack], None]) -> None:
    def do_harm(stack: FuzzStack, arguments: Arguments) -> None:
        harm(stack)

    world = World([*STEPS, do_harm], blocks=1024)
    world.run(encode([HONEST, OPEN, WRITE, HONEST]))
    with pytest.raises(AssertionError):
        world.run(encode([HONEST, OPEN, WRITE, Step(5, b""), HONEST]))


def test_an_honest_client_takes_nothing_from_beyond_its_window_but_the_answer_to_a_forgery(world: World) -> None:
    world.stack.rewind()
    steps.honest(world.stack, Arguments(b""))
    honest = world.stack.honest[0]
    assert honest.client is not None and honest.client.established
    far = honest.client._rcv_nxt + 20_000
    for segment in (Segment(7, honest.port, far, 0, "A", payload=b"x"), Segment(7, honest.port, far, 0, "R")):
        with pytest.raises(AssertionError, match="beyond its window"):
            honest.arrives(segment)
    honest.is_forged(Segment(honest.port, 7, 5, far, "A"))
    honest.arrives(Segment(7, honest.port, far, 0, "R"))
    for segment in (Segment(7, honest.port, far, 0, "A"), Segment(7, honest.port, far + 1, 0, "R")):
        with pytest.raises(AssertionError, match="beyond its window"):
            honest.arrives(segment)
    assert not honest.client.was_reset


def test_an_honest_client_is_accepted_once(world: World) -> None:
    stack = world.stack
    stack.rewind()
    steps.honest(stack, Arguments(b""))
    honest = stack.honest[0]
    again = StackEvent(Event.ACCEPT, honest.handle & SLOT_MASK, honest.handle + (1 << 24), 0, 0)
    stack.core.counters.syn_cookies_taken = 2
    with pytest.raises(AssertionError, match="accepted twice"):
        stack._live(again)
    stack.command(Command.ABORT, honest.handle)
    stack._rest()
    stack.core.counters.syn_cookies_taken = 0
    with pytest.raises(AssertionError, match="accepted twice"):
        stack._live(again)
    stack.core.counters.syn_cookies_taken = 2
    stack._live(again)
    assert honest.taken == 0


@pytest.mark.parametrize("at", [6, 14, 17, 20, 24, 26, 30, 34, 46, 47, 50, 54])
def test_a_frame_that_no_host_may_send_is_noticed(at: int) -> None:
    segment = Segment(7, 1000, 1, 1, "A", options=b"\x01\x01\x01\x00", source="10.9.0.2", destination="10.9.0.1")
    frame = segment.frame(MAC, b"\x02\0\0\0\0\x02")
    ours = (bytes((10, 9, 0, 2)), b"\x02\0\0\0\0\x02", 1500)
    assert check_outgoing(frame, *ours) is not None
    with pytest.raises(BadFrame):
        check_outgoing(frame[:at] + bytes([frame[at] ^ 0x55]) + frame[at + 1 :], *ours)
    with pytest.raises(BadFrame):
        check_outgoing(frame, *ours[:2], 40)


def test_the_door_knows_a_frame_that_is_cut() -> None:
    door = Door("10.9.0.2", b"\x02\0\0\0\0\x02", 1500)
    frame = arp_request(MAC, "10.9.0.1", "10.9.0.2")
    assert [door.arrives(frame[:length], 0).drop for length in (13, 14, 41, 42)] == [
        "drop_runt",
        "drop_arp_malformed",
        "drop_arp_malformed",
        "",
    ]


def test_options_are_read() -> None:
    options = parse_options(b"\x01\x02\x04\x05\xb4\x03\x03\x0f\x04\x02\x05\x0a" + bytes(range(8)) + b"\x00\xff")
    assert options is not None
    assert (options.mss, options.scale, options.sack_permitted) == (1460, 14, True)
    assert options.sacks == ((0x00010203, 0x04050607),)
    assert parse_options(b"\x02\x03\x05\x01") is None
