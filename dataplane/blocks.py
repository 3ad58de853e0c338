"""The pool of 2 KiB blocks: send buffers, unread data and out-of-order segments are chains of them.

A block's record says which part of it is used ([start, end)) and what follows; its bytes lie at `block_address`.
"""

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import BLOCK_BYTES, NO_BLOCK, block_at, free_block_get, free_block_put


@compiled
def block_address(core, block):
    return core.block_data + block * BLOCK_BYTES


@compiled
def take_block(core):
    """An empty block, or NO_BLOCK."""
    if core.free_block_count == 0:
        return NO_BLOCK
    core.free_block_count -= 1
    index = free_block_get(core, core.free_block_count)
    block = block_at(core, index)
    block.next = NO_BLOCK
    block.start = 0
    block.end = 0
    return index


@compiled
def give_block(core, index):
    free_block_put(core, core.free_block_count, index)
    core.free_block_count += 1


@compiled
def give_chain(core, index):
    while index != NO_BLOCK:
        following = block_at(core, index).next
        give_block(core, index)
        index = following
