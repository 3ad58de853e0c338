"""Receive-side scaling for packet sockets: each worker has one on the interface and a filter that lets its own flows pass.

Every socket is offered every frame and the kernel runs the filter before it copies. What a dead worker would get waits for no
other: its flows are its successor's. Classic BPF (linux/filter.h), which needs no privilege.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

from mpserve.dataplane import flow_hash

SO_ATTACH_FILTER = 26
ALL = 0x40000  # bytes of a frame that passes: all of it

# linux/bpf_common.h
LD_WORD, LD_HALF, LD_BYTE, LD_WORD_AT_X = 0x20, 0x28, 0x30, 0x40  # from the frame
LDX_HEADER = 0xB1  # 4 * (byte & 0xf): the length of an IPv4 header
LD_MEM, LDX_MEM, ST, TAX = 0x60, 0x61, 0x02, 0x07
AND, XOR_X, OR_X, RSH, LSH, MOD = 0x54, 0xAC, 0x4C, 0x74, 0x64, 0x94
JUMP_EQUAL, JUMP_ANY_OF, JUMP, RETURN = 0x15, 0x45, 0x05, 0x06

ETHERTYPE, FRAGMENT, PROTOCOL, SOURCE, DESTINATION, HEADER = 12, 20, 23, 26, 30, 14
SUM, HASH = flow_hash.WORDS, flow_hash.WORDS + 1  # memory cells behind the words of input

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def _do(code: int, operand: int = 0) -> Instruction:
    return code, 0, 0, operand


def program(queue: int, queues: int) -> list[Instruction]:
    """Passes what `flow_hash.queue_of` says is `queue`'s, and to queue 0 what isn't spread."""
    body = _load_words()
    for bit in range((min(flow_hash.ENTRIES, _power_of_two(queues)) - 1).bit_length()):
        body += _add_bit(bit)
    body += [_do(LD_MEM, HASH), _do(MOD, queues), (JUMP_EQUAL, 0, 1, queue), _do(RETURN, ALL), _do(RETURN, 0)]
    return [*_unless_tcp(body), _do(RETURN, 0 if queue else ALL)]


def _power_of_two(queues: int) -> int:
    """How much of the hash decides: its lowest bits alone where the number of queues is a power of two."""
    return queues if queues & (queues - 1) == 0 else flow_hash.ENTRIES


def _unless_tcp(body: list[Instruction]) -> list[Instruction]:
    """`body` for TCP over IPv4 that is no fragment; for all else what comes behind it. Jumps reach 255 instructions at most."""
    return [
        _do(LD_HALF, ETHERTYPE),
        (JUMP_EQUAL, 0, 4, 0x0800),
        _do(LD_BYTE, PROTOCOL),
        (JUMP_EQUAL, 0, 2, 6),
        _do(LD_HALF, FRAGMENT),
        (JUMP_ANY_OF, 0, 1, 0x3FFF),  # more fragments, or an offset
        _do(JUMP, len(body)),
        *body,
    ]


def _load_words() -> list[Instruction]:
    loads = [_do(LD_WORD, SOURCE), _do(LD_WORD, DESTINATION), _do(LD_WORD_AT_X, HEADER)]
    stored = [word for cell, load in enumerate(loads) for word in (load, _do(ST, cell))]
    return [_do(LDX_HEADER, HEADER), *stored, _do(AND, 0), _do(ST, HASH)]


def _add_bit(bit: int) -> list[Instruction]:
    """One bit of the hash: the parity of the words under their masks."""
    steps = [_do(LD_MEM, 0), _do(AND, flow_hash.bit_masks(bit)[0])]
    for cell, mask in enumerate(flow_hash.bit_masks(bit)[1:], 1):
        steps += [_do(ST, SUM), _do(LD_MEM, cell), _do(AND, mask), _do(LDX_MEM, SUM), _do(XOR_X)]
    for shift in (16, 8, 4, 2, 1):
        steps += [_do(TAX), _do(RSH, shift), _do(XOR_X)]
    return [*steps, _do(AND, 1), _do(LSH, bit), _do(LDX_MEM, HASH), _do(OR_X), _do(ST, HASH)]


def attach(descriptor: int, queue: int, queues: int) -> None:
    """Let only the frames of `queue` into the packet socket behind `descriptor` from now on. OSError."""
    instructions = program(queue, queues)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
    head = struct.pack("HP", len(instructions), ctypes.addressof(code))
    with socket.socket(fileno=os.dup(descriptor)) as packets:
        packets.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, head)
