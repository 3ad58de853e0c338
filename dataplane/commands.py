"""Executes the commands of a batch: what a channel asks of its handles and listeners."""

import numpy as np

from mpserve.dataplane.blocks import give_chain
from mpserve.dataplane.events import (
    GENERATION_MASK,
    OP_BITS,
    SLOT_BITS,
    SLOT_MASK,
    Command,
    command_address,
    command_length,
    command_word,
)
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import (
    LISTENERS,
    NEVER,
    NO_BLOCK,
    conn_at,
    core_at,
    counters_at,
    listener_at,
    tcb_at,
)
from mpserve.dataplane.memory import native64
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.connection import (
    ABORTED,
    FINISHED,
    NO_MEMORY,
    SLOW_READER,
    abort,
    destroy,
    notify,
    owe_output,
)
from mpserve.dataplane.tcp.sendbuf import append
from mpserve.dataplane.tcp.settings import LINGER, set_option
from mpserve.dataplane.tcp.state import AFTER_CLOSE, CLOSED, SYN_RECEIVED, SYN_SENT, TIME_WAIT
from mpserve.dataplane.tcp.unlisten import stop_listening
from mpserve.dataplane.wheel import arm

WRITE, SHUTDOWN, CLOSE, ABORT = (int(c) for c in (Command.WRITE, Command.SHUTDOWN, Command.CLOSE, Command.ABORT))
PAUSE, RESUME, TIMEOUT = int(Command.PAUSE), int(Command.RESUME), int(Command.TIMEOUT)
WANT_WRITABLE, READ_ONCE = int(Command.WANT_WRITABLE), int(Command.READ_ONCE)
ACCEPT_COMMAND, SET, STOP_LISTENING = int(Command.ACCEPT), int(Command.SET), int(Command.STOP_LISTENING)
HARD_LIMIT_SNDBUFS = 4  # a send buffer this many times its set size means a peer that doesn't read


@unit("commands")
def commands(core_address, count):
    """Execute the first `count` commands of the table.

    Where core.command_base is set, the payloads lie there one behind the other, and the address column is not filled in.
    """
    core = core_at(core_address)
    now = core.now
    base = core.command_base
    for i in range(count):
        word = command_word(core, i)
        length = command_length(core, i)
        address = command_address(core, i) if core.command_base == 0 else base
        base += length
        op = word & ((1 << OP_BITS) - 1)
        handle = word >> OP_BITS
        if op == ACCEPT_COMMAND:
            accept(core, handle, native64(address))
            continue
        if op == STOP_LISTENING:
            stop_listening(core, handle)
            continue
        slot = handle & SLOT_MASK
        if slot >= core.connections or tcb_at(core, slot).generation != (handle >> SLOT_BITS) & GENERATION_MASK:
            counters_at(core.counters).stale_commands += 1
            continue
        tcb = tcb_at(core, slot)
        if tcb.state == CLOSED:
            continue  # it has just ended: its CLOSED event is on the way
        if op == WRITE:
            write(core, tcb, conn_at(core, slot), address, length)
        else:
            execute(core, tcb, conn_at(core, slot), op, address, now)
    counters_at(core.counters).commands += count
    core.command_count = 0
    core.command_base = 0
    return count


@compiled
def write(core, tcb, conn, address, length):
    if tcb.flags & flags.FIN_QUEUED or tcb.state == TIME_WAIT:
        return
    if tcb.snd_queued + length > HARD_LIMIT_SNDBUFS * conn.sndbuf:
        counters_at(core.counters).slow_readers += 1
        abort(core, tcb, conn, SLOW_READER)
    elif append(core, tcb, address, length) < length:
        counters_at(core.counters).drop_no_block += 1
        abort(core, tcb, conn, NO_MEMORY)
    else:
        counters_at(core.counters).bytes_written += length
        owe_output(core, tcb)


@compiled
def execute(core, tcb, conn, op, argument, now):
    """Every command but WRITE; `argument` is the address of its 8 bytes."""
    if op == SHUTDOWN:
        _close_send(core, tcb)
    elif op == CLOSE:
        _close(core, tcb, conn, now)
    elif op == ABORT:
        abort(core, tcb, conn, ABORTED)
    elif op == PAUSE:
        tcb.flags &= ~flags.READING
    elif op == RESUME:
        tcb.flags |= flags.READING
        notify(core, tcb, 0)
    elif op == READ_ONCE:
        tcb.flags |= flags.READ_ONCE
        notify(core, tcb, 0)
    elif op == WANT_WRITABLE:
        tcb.flags |= flags.WANT_WRITABLE
        notify(core, tcb, 0)
    elif op == TIMEOUT:
        conn.idle_us = native64(argument)
        conn.idle_at = now + conn.idle_us if conn.idle_us > 0 else NEVER
        arm(core, tcb.slot, conn.idle_at)
    elif op == SET:
        set_option(core, tcb, conn, native64(argument), now)


@compiled
def _close_send(core, tcb):
    """RFC 9293 section 3.10.4: a FIN follows what was written, and our SYN."""
    if tcb.flags & flags.FIN_QUEUED == 0 and tcb.state != TIME_WAIT:
        tcb.flags |= flags.FIN_QUEUED
        if tcb.state != SYN_SENT and tcb.state != SYN_RECEIVED:
            tcb.state = AFTER_CLOSE[tcb.state]
        owe_output(core, tcb)


@compiled
def _close(core, tcb, conn, now):
    """The handle is given up: what still arrives is dropped, and the peer's FIN is waited for only so long.

    Data that came and was not read is answered by a RST, unless that could overtake what was written.
    """
    if tcb.flags & flags.USER_CLOSED:
        return
    if conn.rcv_queued > 0 and tcb.snd_queued == 0 and tcb.state != TIME_WAIT:
        abort(core, tcb, conn, ABORTED)  # a RST shows that data was lost (RFC 1122 section 4.2.2.13)
        return
    tcb.flags = (tcb.flags | flags.USER_CLOSED) & ~(
        flags.READING | flags.READ_ONCE | flags.WANT_WRITABLE | flags.NOTIFY_EOF
    )
    conn.idle_us = 0
    conn.idle_at = NEVER
    give_chain(core, conn.rcv_head)
    conn.rcv_head = conn.rcv_tail = NO_BLOCK
    conn.rcv_queued = 0
    if tcb.state == TIME_WAIT:
        destroy(core, tcb, conn, FINISHED)
        return
    if tcb.state == SYN_SENT or (conn.settings & LINGER and conn.linger_ms == 0):
        abort(core, tcb, conn, ABORTED)
        return
    _close_send(core, tcb)
    conn.state_at = now + (np.int64(conn.linger_ms) * 1000 if conn.settings & LINGER else core.fin_wait_us)
    arm(core, tcb.slot, conn.state_at)


@compiled
def accept(core, number, count):
    """Let a listener complete `count` more accepts; connections that wait come first."""
    if number < 0 or number >= LISTENERS or listener_at(core, number).used == 0:
        counters_at(core.counters).stale_commands += 1
        return
    listener_at(core, number).accepts += count
    core.accepts_waiting = 1  # `gather` completes them
