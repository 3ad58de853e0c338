"""What a peer sees of a stack, in words by which two stacks can be compared.

A view is a list of steps: what the peer or the application did, and the segments that came. Ports, initial sequence numbers,
clocks, identifications, sizes of windows and NOPs are left out; sequence numbers count from the SYNs.
"""

import struct
from dataclasses import dataclass, field

from mpserve.testing.segment import Segment

MASK = 0xFFFFFFFF
NAMES = {2: "mss", 3: "scale", 4: "sack ok", 5: "sack", 8: "ts"}
DF = 0x40
CYCLE = bytes(range(251))


def octets(start: int, length: int) -> bytes:
    """Bytes `start` to `start + length` of the stream that both sides send."""
    first = start % len(CYCLE)
    return (CYCLE * (length // len(CYCLE) + 2))[first : first + length]


@dataclass
class Origins:
    """What a segment's numbers count from: its sender's ISS, the other's, and the other's first timestamp."""

    seq: int
    ack: int
    ts: int


def options_of(segment: Segment) -> list[tuple[int, bytes]]:
    """(kind, value) of each option but NOPs."""
    found, at, data = [], 0, segment.options
    while at < len(data) and data[at] != 0:
        if data[at] == 1:
            at += 1
            continue
        found.append((data[at], data[at + 2 : at + data[at + 1]]))
        at += data[at + 1]
    return found


def _option(kind: int, value: bytes, origins: Origins) -> str:
    name = NAMES.get(kind, f"kind {kind}")
    if kind == 2:
        return f"mss {int.from_bytes(value)}"
    if kind == 5:
        edges = [str((edge - origins.ack) & MASK) for edge in struct.unpack(f"!{len(value) // 4}I", value)]
        return "sack " + " ".join(f"{start}:{end}" for start, end in zip(edges[::2], edges[1::2], strict=True))
    if kind == 8:
        echo = struct.unpack("!II", value)[1]
        return f"ts {(echo - origins.ts) & MASK}" if echo else "ts"
    return name


def describe(segment: Segment, origins: Origins) -> str:
    """Such as `PA 1:1001 ack 301 <ts 7>`: flags, sequence numbers, the echo of a timestamp; `win 0` where it is closed."""
    start = (segment.seq - origins.seq) & MASK if segment.seq else 0  # RSTs of unknown flows begin at 0 itself
    words = [segment.flags, f"{start}:{(start + len(segment.payload)) & MASK}" if segment.payload else str(start)]
    if "A" in segment.flags:
        words.append(f"ack {(segment.ack - origins.ack) & MASK}")
    if "U" in segment.flags:
        words.append(f"urgent {segment.urgent}")
    there = sorted(_option(kind, value, origins) for kind, value in options_of(segment))
    if there:
        words.append(f"<{', '.join(there)}>")
    if segment.window == 0 and "R" not in segment.flags:
        words.append("win 0")
    return " ".join(words)


@dataclass
class Step:
    """What was done, and what was seen of it."""

    what: str
    seen: list[str] = field(default_factory=list)


class View:
    """The steps of one script with one stack."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def begin(self, what: str) -> None:
        """The next step. A second one of the same words gets a number."""
        same = sum(step.what.partition(" #")[0] == what for step in self.steps)
        self.steps.append(Step(f"{what} #{same + 1}" if same else what))

    def saw(self, line: str) -> None:
        if not self.steps:
            self.begin("at first")
        self.steps[-1].seen.append(line)

    def text(self) -> str:
        return "\n".join(line for step in self.steps for line in (step.what, *(f"    {seen}" for seen in step.seen)))


@dataclass(frozen=True)
class Difference:
    """What two stacks did otherwise in one step."""

    step: str
    linux: tuple[str, ...]
    ours: tuple[str, ...]


def differences(linux: View, ours: View) -> list[Difference]:
    """Step by step. Steps that are not the same themselves differ as well: a script went another way."""
    found: list[Difference] = []
    for at in range(max(len(linux.steps), len(ours.steps))):
        one = linux.steps[at] if at < len(linux.steps) else Step("nothing")
        two = ours.steps[at] if at < len(ours.steps) else Step("nothing")
        if one.what != two.what:
            return [*found, Difference("the script's way", (one.what,), (two.what,))]
        if one.seen != two.seen:
            found.append(Difference(one.what, tuple(one.seen), tuple(two.seen)))
    return found
