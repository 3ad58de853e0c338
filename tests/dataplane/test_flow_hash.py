"""The hash that chooses a queue: the vectors of the RSS specification, the table, and the same in BPF."""

import random
import socket

import pytest

from mpserve.dataplane import flow_hash, packet_filter

# Microsoft's "Verifying the RSS hash calculation": source, its port, destination, its port, hash of TCP over IPv4.
VECTORS = [
    ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x51CCC178),
    ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xC626B0EA),
    ("24.19.198.95", 12898, "12.22.207.184", 38024, 0x5C2B394A),
    ("38.27.205.30", 48228, "209.142.163.6", 2217, 0xAFC7327F),
    ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x10E828A2),
]


@pytest.mark.parametrize(("source", "source_port", "destination", "destination_port", "expected"), VECTORS)
def test_toeplitz(source: str, source_port: int, destination: str, destination_port: int, expected: int) -> None:
    addresses = socket.inet_aton(source), socket.inet_aton(destination)
    assert flow_hash.toeplitz(*addresses, source_port, destination_port) == expected


def test_a_table_gives_every_queue_its_share() -> None:
    assert flow_hash.table(3, 8) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert flow_hash.table(3, 8, period=4) == [0, 1, 2, 0, 0, 1, 2, 0]
    assert flow_hash.table(3, 256) == flow_hash.table(3) * 2


def test_a_key_of_another_length_hashes_alike() -> None:
    assert (
        flow_hash.key_of(40) == flow_hash.KEY
        and flow_hash.key_of(52)[:40] == flow_hash.KEY
        and len(flow_hash.key_of(52)) == 52
    )


def run(program: list[packet_filter.Instruction], frame: bytes) -> int:
    """What the kernel's classic BPF would return: the few instructions that the filter uses."""
    memory, a, x, at = [0] * 16, 0, 0, 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        match code:
            case packet_filter.LD_WORD | packet_filter.LD_HALF | packet_filter.LD_BYTE:
                width = {packet_filter.LD_WORD: 4, packet_filter.LD_HALF: 2, packet_filter.LD_BYTE: 1}[code]
                a = int.from_bytes(frame[k : k + width], "big")
            case packet_filter.LD_WORD_AT_X:
                a = int.from_bytes(frame[x + k : x + k + 4], "big")
            case packet_filter.LDX_HEADER:
                x = 4 * (frame[k] & 15)
            case packet_filter.LD_MEM:
                a = memory[k]
            case packet_filter.LDX_MEM:
                x = memory[k]
            case packet_filter.ST:
                memory[k] = a
            case packet_filter.TAX:
                x = a
            case packet_filter.AND:
                a &= k
            case packet_filter.XOR_X:
                a ^= x
            case packet_filter.OR_X:
                a |= x
            case packet_filter.RSH:
                a >>= k
            case packet_filter.LSH:
                a = a << k & 0xFFFFFFFF
            case packet_filter.MOD:
                a %= k
            case packet_filter.JUMP_EQUAL:
                at += if_true if a == k else if_false
            case packet_filter.JUMP_ANY_OF:
                at += if_true if a & k else if_false
            case packet_filter.JUMP:
                at += k
            case packet_filter.RETURN:
                return k
            case _:
                raise AssertionError(code)


@pytest.mark.parametrize("queues", [1, 2, 3, 4, 7, 16])
def test_the_filters_of_a_device_pass_each_frame_to_one_queue(queues: int) -> None:
    programs = [packet_filter.program(queue, queues) for queue in range(queues)]
    rng = random.Random(queues)
    for _ in range(200):
        addresses, ports, words = rng.randbytes(8), rng.randbytes(4), rng.randrange(5, 16)
        header = bytes([0x40 + words]) + bytes(5) + b"\x40\0" + b"\x40\x06\0\0" + addresses + bytes(4 * words - 20)
        frame = bytes(12) + b"\x08\0" + header + ports + bytes(16)
        numbers = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
        owner = flow_hash.queue_of(addresses[:4], addresses[4:], *numbers, queues)
        passed = [run(program, frame) for program in programs]
        assert passed == [packet_filter.ALL if queue == owner else 0 for queue in range(queues)]


@pytest.mark.parametrize(
    ("ethertype", "fragment", "protocol"),
    [(0x0806, 0, 6), (0x86DD, 0, 6), (0x0800, 0, 17), (0x0800, 0, 1), (0x0800, 0x2000, 6), (0x0800, 5, 6)],
)
def test_what_is_not_spread_is_the_first_queues(ethertype: int, fragment: int, protocol: int) -> None:
    header = b"\x45" + bytes(5) + fragment.to_bytes(2, "big") + bytes([64, protocol]) + bytes(10)
    frame = bytes(12) + ethertype.to_bytes(2, "big") + header + bytes(20)
    assert [run(packet_filter.program(queue, 5), frame) for queue in range(5)] == [packet_filter.ALL, 0, 0, 0, 0]


def test_the_longest_filter_is_short_enough_for_the_kernel() -> None:
    assert len(packet_filter.program(15, 15)) < 4096  # BPF_MAXINSNS
