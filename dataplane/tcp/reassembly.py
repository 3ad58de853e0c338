"""Received data that can't be delivered at once: unread data in order, and segments that came out of order.

Both are chains of blocks. A block of the out-of-order chain holds part of one segment and its sequence number; the chain
is sorted by it, and parts may overlap until they are taken out.
"""

from mpserve.dataplane.blocks import block_address, give_block, give_chain, take_block
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import BLOCK_BYTES, NO_BLOCK, block_at, counters_at
from mpserve.dataplane.memory import copy
from mpserve.dataplane.tcp.seq import add, after, diff

_LOSS_REMEMBERED_US = 1_000_000


@compiled
def keep_unread(core, conn, address, length):
    """Append in-order data to the unread chain; how many bytes found room."""
    put = 0
    while put < length:
        if conn.rcv_tail == NO_BLOCK or block_at(core, conn.rcv_tail).end == BLOCK_BYTES:
            index = take_block(core)
            if index == NO_BLOCK:
                break
            if conn.rcv_tail == NO_BLOCK:
                conn.rcv_head = index
            else:
                block_at(core, conn.rcv_tail).next = index
            conn.rcv_tail = index
        block = block_at(core, conn.rcv_tail)
        part = min(length - put, BLOCK_BYTES - block.end)
        copy(block_address(core, conn.rcv_tail) + block.end, address + put, part)
        block.end += part
        put += part
    conn.rcv_queued += put
    return put


@compiled
def put_back(core, conn, address, length):
    """Put delivered data back before what is unread; how many bytes found room."""
    head, tail = conn.rcv_head, conn.rcv_tail
    conn.rcv_head = conn.rcv_tail = NO_BLOCK
    put = keep_unread(core, conn, address, length)
    if conn.rcv_tail == NO_BLOCK:
        conn.rcv_head, conn.rcv_tail = head, tail
    elif head != NO_BLOCK:
        block_at(core, conn.rcv_tail).next = head
        conn.rcv_tail = tail
    return put


@compiled
def take_unread(core, conn, to, room):
    """Move up to `room` bytes of unread data to `to`; how many."""
    taken = 0
    while conn.rcv_head != NO_BLOCK and taken < room:
        head = conn.rcv_head
        block = block_at(core, head)
        part = min(room - taken, block.end - block.start)
        copy(to + taken, block_address(core, head) + block.start, part)
        block.start += part
        taken += part
        if block.start == block.end:
            conn.rcv_head = block.next
            give_block(core, head)
    if conn.rcv_head == NO_BLOCK:
        conn.rcv_tail = NO_BLOCK
    conn.rcv_queued -= taken
    return taken


@compiled
def keep_out_of_order(core, conn, seq, address, length):
    """Keep a segment that lies beyond rcv_nxt, block by block; False if the bound or the pool is reached."""
    while length > 0:
        part = min(length, BLOCK_BYTES)
        known, known_end = _known_part(core, conn, seq, part)
        if known < known_end:
            note_duplicate(core, conn, add(seq, known), known_end - known)
        if known_end - known < part:
            index = _take_kept_block(core, conn, seq, part)
            if index == NO_BLOCK:
                return False
            copy(block_address(core, index), address, part)
        seq = add(seq, part)
        address += part
        length -= part
    return True


@compiled
def loses_frames(conn, now):
    """Whether the path has lost something lately, as gaps and duplicates show."""
    return now - conn.lossy_at < _LOSS_REMEMBERED_US


@compiled
def note_duplicate(core, conn, seq, length):
    """These bytes have come before: the next ACK says so (RFC 2883). A FIN counts as one."""
    conn.lossy_at = core.now
    conn.dsack_start = seq
    conn.dsack_end = add(seq, length)


@compiled
def _lies_behind(core, conn, seq):
    """Whether a segment begins behind all that is kept, as most do."""
    if conn.ooo_tail == NO_BLOCK:
        return True
    last = block_at(core, conn.ooo_tail)
    return diff(seq, last.seq) >= last.end


@compiled
def _known_part(core, conn, seq, length):
    """What one kept block holds of [seq, seq + length): all of it if any does, else the first overlap; offsets (from, to)."""
    known, known_end = 0, 0
    index = NO_BLOCK if _lies_behind(core, conn, seq) else conn.ooo_head
    while index != NO_BLOCK:
        block = block_at(core, index)
        offset = diff(seq, block.seq)
        if offset + length <= 0:
            break
        if 0 <= offset and offset + length <= block.end:
            return 0, length
        if known == known_end and offset < block.end:
            known, known_end = max(-offset, 0), min(block.end - offset, length)
        index = block.next
    return known, known_end


@compiled
def _take_kept_block(core, conn, seq, length):
    """A block in the out-of-order chain for the bytes of [seq, seq + length), or NO_BLOCK if the bound or the pool is reached."""
    if conn.ooo_blocks >= 16 + conn.rcvbuf // 512:
        counters_at(core.counters).drop_ooo_full += 1
        return NO_BLOCK
    index = take_block(core)
    if index == NO_BLOCK:
        counters_at(core.counters).drop_no_block += 1
        return NO_BLOCK
    block = block_at(core, index)
    block.seq = seq
    block.end = length
    _link_sorted(core, conn, index)
    return index


@compiled
def keep_fin(core, conn, seq):
    """Keep a FIN that lies behind a gap: a block of one byte that is none, so that it is reported like data. False: no room."""
    if _take_kept_block(core, conn, seq, 1) == NO_BLOCK:
        return False
    conn.fin_seq = seq
    return True


@compiled
def forget_kept(core, conn):
    """Give all that is kept out of order back."""
    give_chain(core, conn.ooo_head)
    conn.ooo_head = conn.ooo_tail = NO_BLOCK
    conn.ooo_blocks = 0


@compiled
def _link_sorted(core, conn, index):
    block = block_at(core, index)
    previous = NO_BLOCK
    at = conn.ooo_head
    if _lies_behind(core, conn, block.seq):
        previous, at = conn.ooo_tail, NO_BLOCK
    while at != NO_BLOCK and not after(block_at(core, at).seq, block.seq):
        previous = at
        at = block_at(core, at).next
    block.next = at
    if previous == NO_BLOCK:
        conn.ooo_head = index
    else:
        block_at(core, previous).next = index
    if at == NO_BLOCK:
        conn.ooo_tail = index
    conn.ooo_blocks += 1


@compiled
def next_in_order(core, tcb, conn):
    """The first kept block if it reaches rcv_nxt or lies before it, unlinked; NO_BLOCK if a gap remains."""
    index = conn.ooo_head
    if index == NO_BLOCK or after(block_at(core, index).seq, tcb.rcv_nxt):
        return NO_BLOCK
    conn.ooo_head = block_at(core, index).next
    if conn.ooo_head == NO_BLOCK:
        conn.ooo_tail = NO_BLOCK
    conn.ooo_blocks -= 1
    return index
