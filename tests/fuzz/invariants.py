"""What holds in a core's memory whenever nothing is going on, whatever came in: each check names what it finds wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mpserve.dataplane.core import Core
from mpserve.dataplane.layout import NO_BLOCK
from mpserve.dataplane.memory import rows
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.backlog import MIN_MSS
from mpserve.dataplane.tcp.sent import LOST, SACKED
from mpserve.dataplane.tcp.state import CLOSED, SYN_RECEIVED, SYN_SENT, TIME_WAIT

MASK = 0xFFFFFFFF


def ahead(a: int, b: int) -> int:
    """a - b of sequence numbers, with its sign."""
    return ((int(a) - int(b) + 0x80000000) & MASK) - 0x80000000


def broken(core: Core) -> list[str]:
    """Everything that doesn't hold."""
    found: list[str] = []
    arrays = core.arrays
    tcbs, conns = rows(arrays["tcbs"]), rows(arrays["conns"])
    blocks: Counter[int] = Counter()
    sents: Counter[int] = Counter()
    for slot in map(int, (arrays["tcbs"].state != CLOSED).nonzero()[0]):
        tcb, conn = tcbs[slot], conns[slot]
        checks = (_send_side(core, tcb, blocks), _sent(core, tcb, sents), _receive_side(core, tcb, conn, blocks))
        found += [f"slot {slot}: {text}" for check in checks for text in check]
    found += _pools(core, blocks, sents)
    found += _lists(core)
    return found


def _chain(core: Core, head: int, blocks: Counter[int]) -> list[Any]:
    """The blocks of a chain, counted in `blocks`; a ring ends it."""
    chain, table = [], rows(core.arrays["blocks"])
    while head != NO_BLOCK and blocks[head] == 0:
        blocks[head] += 1
        chain.append(table[head])
        head = int(chain[-1].next)
    if head != NO_BLOCK:
        blocks[head] += 1  # in two chains: `_pools` tells
    return chain


def _send_side(core: Core, tcb: Any, blocks: Counter[int]) -> Iterator[str]:
    held = sum(int(block.end) - int(block.start) for block in _chain(core, int(tcb.snd_head), blocks))
    bits = int(tcb.flags)
    if held != tcb.snd_queued:
        yield f"{held} bytes in the send buffer, snd_queued = {tcb.snd_queued}"
    sent = ahead(tcb.snd_nxt, tcb.snd_una)
    fin = 1 if bits & flags.FIN_SENT else 0
    most = 1 if tcb.state in (SYN_SENT, SYN_RECEIVED) else int(tcb.snd_queued) + fin
    if not 0 <= sent <= most:
        yield f"{sent} bytes unacknowledged of {most}"
    if tcb.mss < MIN_MSS - 12 or tcb.mss > core.record.mss:
        yield f"mss = {tcb.mss}"
    if tcb.cwnd < tcb.mss or tcb.snd_wnd < 0 or tcb.max_wnd < tcb.snd_wnd:
        yield f"cwnd = {tcb.cwnd}, mss = {tcb.mss}, snd_wnd = {tcb.snd_wnd}, max_wnd = {tcb.max_wnd}"
    if not 0 < tcb.rto_us <= core.record.rto_max_us:
        yield f"rto_us = {tcb.rto_us}"


def _sent(core: Core, tcb: Any, sents: Counter[int]) -> Iterator[str]:
    """The ranges cover [snd_una, snd_nxt) without gaps, and the sums of their marks are right."""
    if tcb.state in (SYN_SENT, SYN_RECEIVED):
        return
    index, at, last = int(tcb.sent_head), int(tcb.snd_una), NO_BLOCK
    sacked = lost = 0
    table = rows(core.arrays["sents"])
    while index != -1 and sents[index] == 0:
        sents[index] += 1
        record = table[index]
        length = ahead(record.end, record.start)
        if int(record.start) != at or length <= 0:
            yield f"a range [{record.start}, {record.end}) where {at} is next"
        if record.marks & SACKED and record.marks & LOST:
            yield "a range both reported and lost"
        sacked += length if record.marks & SACKED else 0
        lost += length if record.marks & LOST else 0
        at, last, index = int(record.end), index, int(record.next)
    if at != tcb.snd_nxt or last != tcb.sent_tail:
        yield f"ranges end at {at} ({last}), snd_nxt = {tcb.snd_nxt} ({tcb.sent_tail})"
    if (sacked, lost) != (tcb.sacked, tcb.lost):
        yield f"{sacked} bytes reported and {lost} lost, not {tcb.sacked} and {tcb.lost}"


def _is_kept_fin(tcb: Any, conn: Any, block: Any) -> bool:
    return bool(int(tcb["flags"]) & flags.FIN_KEPT) and block.seq == conn.fin_seq


def _receive_side(core: Core, tcb: Any, conn: Any, blocks: Counter[int]) -> Iterator[str]:
    unread = _chain(core, int(conn.rcv_head), blocks)
    held = sum(int(block.end) - int(block.start) for block in unread)
    if held != conn.rcv_queued:
        yield f"{held} bytes unread, rcv_queued = {conn.rcv_queued}"
    early = _chain(core, int(conn.ooo_head), blocks)
    if len(early) != conn.ooo_blocks or (conn.ooo_head == NO_BLOCK) != (conn.ooo_tail == NO_BLOCK):
        yield f"{len(early)} blocks out of order, ooo_blocks = {conn.ooo_blocks}"
    if tcb.state == TIME_WAIT:
        return
    window = ahead(tcb.rcv_adv, tcb.rcv_nxt)
    if window > core.record.rcvbuf_max:
        yield f"a window of {window}"
    for before, after in zip(early, early[1:], strict=False):
        if ahead(after.seq, before.seq) < 0:
            yield "the out-of-order chain is not sorted"
    if early and ahead(early[0].seq, tcb.rcv_nxt) <= 0:
        yield f"kept data at {early[0].seq} is not out of order: rcv_nxt = {tcb.rcv_nxt}"
    if any(ahead(int(b.seq) + int(b.end), tcb.rcv_adv) > 0 for b in early if not _is_kept_fin(tcb, conn, b)):
        yield "kept data beyond the window"
    if any(ahead(b.seq, tcb.rcv_adv) > 0 for b in early):  # a FIN takes no room: it may lie at the window's edge
        yield "a FIN kept beyond the window"


def _pools(core: Core, blocks: Counter[int], sents: Counter[int]) -> Iterator[str]:
    """Each block and range is in one chain or free; slots, SYNs and TIME_WAITs are counted right."""
    record, arrays = core.record, core.arrays
    for name, used, free, count in (
        ("block", blocks, "free_blocks", int(record.free_block_count)),
        ("range", sents, "free_sents", int(record.free_sent_count)),
    ):
        twice = [index for index, times in used.items() if times > 1]
        if twice:
            yield f"{name} {twice} in two chains"
        free_ones = set(arrays[free].value[:count].tolist()) if name == "block" else set()
        if used.keys() & free_ones:
            yield f"{name} {used.keys() & free_ones} in use and free"
        total = len(arrays[free])
        if len(used) + count != total:
            yield f"{len(used)} {name}s in use and {count} free, of {total}"
    syns = int((arrays["syns"].used == 1).sum())
    if syns + record.free_syn_count != record.syn_count:
        yield f"{syns} SYNs and {record.free_syn_count} free, of {record.syn_count}"
    if int(arrays["listeners"].backlogged.sum()) != syns:
        yield f"{syns} SYNs, backlogged = {arrays['listeners'].backlogged[:4]}"
    senders = int(((arrays["tcbs"].sent_head != -1) & (arrays["tcbs"].state != CLOSED)).sum())
    if senders != record.senders:
        yield f"{senders} connections have ranges, senders = {record.senders}"
    unused = record.connections - record.free_slot_count - record.released_count
    live = int((arrays["tcbs"].state != CLOSED).sum())
    if live > unused:
        yield f"{live} connections on {unused} slots"


def _lists(core: Core) -> Iterator[str]:
    """Every live flow is found in its table once, and listeners' queues hold what they say."""
    record, arrays = core.record, core.arrays
    states = arrays["tcbs"].state
    flows = int(((states != CLOSED) & (states != TIME_WAIT)).sum())
    for name, want in (
        ("flows", flows),
        ("syn_flows", int((arrays["syns"].used == 1).sum())),
        ("wait_flows", int((arrays["time_waits"].until != 0).sum())),
    ):
        entries = int((arrays[name].value != 0).sum())
        if entries != want:
            yield f"{entries} entries in {name}, {want} connections"
    for listener in arrays["listeners"][arrays["listeners"].used == 1]:
        slot, queued = int(listener.queue_head), 0
        while queued < listener.queued:
            if not 0 <= slot < record.connections or not arrays["tcbs"]["flags"][slot] & flags.UNACCEPTED:
                yield f"slot {slot} in the accept queue of port {listener.port}"
                break
            slot, queued = int(arrays["conns"][slot].next), queued + 1
