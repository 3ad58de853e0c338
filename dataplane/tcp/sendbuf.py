"""The send buffer: a chain of blocks that holds the bytes from snd_una on, until they are acknowledged."""

from mpserve.dataplane.blocks import block_address, give_block, take_block
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import BLOCK_BYTES, NO_BLOCK, block_at
from mpserve.dataplane.memory import copy
from mpserve.dataplane.wire.checksum import sum_bytes


@compiled
def append(core, tcb, address, length):
    """Copy `length` bytes to the end of the send buffer; how many found room."""
    put = 0
    while put < length:
        tail = tcb.snd_tail
        if tail == NO_BLOCK or block_at(core, tail).end == BLOCK_BYTES:
            tail = _grow(core, tcb)
            if tail == NO_BLOCK:
                break
        block = block_at(core, tail)
        part = min(length - put, BLOCK_BYTES - block.end)
        copy(block_address(core, tail) + block.end, address + put, part)
        block.end += part
        put += part
    tcb.snd_queued += put
    return put


@compiled
def reserve(core, tcb, length):
    """The address of `length` contiguous bytes behind the end, BLOCK_BYTES at most; 0 if there is no block for them.

    What is written there is nothing yet: `commit` makes it part of the buffer, before anything else is appended.
    """
    tail = tcb.snd_tail
    if tail == NO_BLOCK or BLOCK_BYTES - block_at(core, tail).end < length:
        tail = _grow(core, tcb)
        if tail == NO_BLOCK:
            return 0
    return block_address(core, tail) + block_at(core, tail).end


@compiled
def commit(core, tcb, length):
    """Make the first `length` bytes of what was reserved part of the buffer."""
    block_at(core, tcb.snd_tail).end += length
    tcb.snd_queued += length


@compiled
def _grow(core, tcb):
    index = take_block(core)
    if index != NO_BLOCK:
        if tcb.snd_tail == NO_BLOCK:
            tcb.snd_head = index
        else:
            block_at(core, tcb.snd_tail).next = index
        tcb.snd_tail = index
    return index


@compiled
def drop_front(core, tcb, length):
    """Give back what was acknowledged: the first `length` bytes."""
    tcb.snd_queued -= length
    while length > 0:
        head = tcb.snd_head
        block = block_at(core, head)
        part = min(length, block.end - block.start)
        block.start += part
        length -= part
        if block.start == block.end:
            tcb.snd_head = block.next
            give_block(core, head)
    if tcb.snd_head == NO_BLOCK:
        tcb.snd_tail = NO_BLOCK


@compiled
def find_offset(core, tcb, offset):
    """(block, position in it) of the byte `offset` bytes past snd_una."""
    index = tcb.snd_head
    block = block_at(core, index)
    while offset >= block.end - block.start and block.next != NO_BLOCK:
        offset -= block.end - block.start
        index = block.next
        block = block_at(core, index)
    return index, block.start + offset


@compiled
def copy_out(core, index, position, to, length):
    """Copy `length` bytes from a place in the chain to a frame; their partial checksum. Also where it ended."""
    total = 0
    done = 0
    while True:
        block = block_at(core, index)
        part = min(length - done, block.end - position)
        source = block_address(core, index) + position
        copy(to + done, source, part)
        done += part
        position += part
        if done >= length or block.next == NO_BLOCK:
            break
        index = block.next
        position = block_at(core, index).start
    total = sum_bytes(to, length)
    return total, index, position
