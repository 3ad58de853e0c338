"""The clients, compiled: what a connection does at each event, and when the next is opened.

They are the stack's users as a compiled handler is, but for that they begin: requests go straight into send buffers.
"""

import numpy as np

from mpserve.apps.load.histogram import note
from mpserve.apps.load.records import (
    CLOSING,
    GONE,
    HTTP,
    IDLE,
    IN_HEAD,
    MEMCACHED,
    OPENING,
    WAITING,
    client_at,
)
from mpserve.apps.load.replies import begin_head, body_length, read_head
from mpserve.dataplane.commands import ABORT, CLOSE, execute
from mpserve.dataplane.events import (
    CLOSED,
    CONNECT,
    EOF,
    READ,
    event_a,
    event_b,
    event_handle,
    event_kind,
    event_slot,
)
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import CONTROL_ROWS, conn_at, tcb_at
from mpserve.dataplane.memory import load8, native64, set_native64, store8
from mpserve.dataplane.tcp.connect import active_open
from mpserve.dataplane.tcp.connection import owe_output
from mpserve.dataplane.tcp.sendbuf import append

MISS_BYTES = 5  # memcached's END and its line end
SLOT_MASK = (1 << 24) - 1
MOST_DUE = 256  # requests that an open loop begins in one turn


@compiled
def take_events(load, core):
    """What the stack has to tell; how much that was."""
    for i in range(core.event_count):
        kind, slot = event_kind(core, i), event_slot(core, i)
        client = client_at(load, slot)
        if kind == READ:
            if client.state == WAITING:
                _reply_arrives(
                    load, core, client, slot, core.arena + event_a(core, i), event_b(core, i) - event_a(core, i)
                )
        elif kind == CONNECT and event_a(core, i) == 0:
            _connected(load, core, client, slot, event_handle(core, i))
        elif kind == EOF:
            _server_closes(load, core, client, slot)
        elif kind == CLOSED:
            _closed(load, client)
    return core.event_count


@compiled
def _connected(load, core, client, slot, handle):
    load.opening -= 1
    load.opened += 1
    client.handle = handle
    client.left = load.transactions
    if load.interval == 0 or load.transactions == 1:
        _ask(load, core, client, slot)  # `started` is when the connection was begun
    else:
        _rest(load, client, slot)


@compiled
def _rest(load, client, slot):
    client.state = IDLE
    set_native64(load.idle + 8 * ((load.idle_head + load.idle_count) & (load.idle_rows - 1)), slot)
    load.idle_count += 1


@compiled
def _ask(load, core, client, slot):
    """Send the next requests. `client.started` is set."""
    count = load.pipeline if load.transactions == 0 else min(load.pipeline, client.left)
    tcb = tcb_at(core, slot)
    for _ in range(count):
        if load.keys > 0:
            _choose_key(load)
        if append(core, tcb, load.request, load.request_bytes) < load.request_bytes:
            load.failures += 1
            _end(load, core, client, slot, ABORT)
            return
    owe_output(core, tcb)
    client.waiting = count
    client.state = WAITING
    _expect(load, client)


@compiled
def _choose_key(load):
    """Another key's number in the request, by xorshift (Marsaglia, 2003)."""
    drawn = np.uint64(load.random)
    drawn ^= drawn << np.uint64(13)
    drawn ^= drawn >> np.uint64(7)
    drawn ^= drawn << np.uint64(17)
    load.random = np.int64(drawn)
    number = np.int64(drawn >> np.uint64(16)) % load.keys
    for digit in range(load.key_digits):
        store8(load.request + load.key_at + load.key_digits - 1 - digit, 48 + number % 10)
        number //= 10


@compiled
def _expect(load, client):
    """A reply is to come."""
    if load.kind == HTTP:
        client.need = IN_HEAD
        begin_head(client)
    else:
        client.need = load.reply_bytes


@compiled
def _reply_arrives(load, core, client, slot, at, length):
    end = at + length
    while at < end and client.waiting > 0:
        if client.need == IN_HEAD:
            at = read_head(client, at, end)
            if client.need == IN_HEAD:
                return
            client.need = body_length(client)
            if client.need < 0:
                load.failures += 1
                _end(load, core, client, slot, ABORT)
                return
        elif load.kind == MEMCACHED and client.need == load.reply_bytes and load8(at) == 69:  # E, of END: a miss
            client.need = MISS_BYTES
        part = min(client.need, end - at)
        at += part
        client.need -= part
        if client.need == 0:
            _reply_is_whole(load, core, client)
    if at < end:
        load.failures += 1  # more than was asked for
    if client.waiting == 0:
        _go_on(load, core, client, slot)


@compiled
def _reply_is_whole(load, core, client):
    load.requests += 1
    client.waiting -= 1
    client.left -= 1
    note(load.histogram, ((core.tsc - client.started) * load.ns_scale) >> 20)
    if client.waiting > 0:
        _expect(load, client)


@compiled
def _go_on(load, core, client, slot):
    """All replies are there."""
    if load.transactions > 0 and client.left <= 0:
        if load.closes_first != 0:
            _end(load, core, client, slot, CLOSE)
        else:
            client.state = CLOSING
    elif load.interval == 0:
        client.started = core.tsc
        _ask(load, core, client, slot)
    else:
        _rest(load, client, slot)


@compiled
def _end(load, core, client, slot, op):
    client.state = CLOSING
    execute(core, tcb_at(core, slot), conn_at(core, slot), op, 0, core.now)


@compiled
def _server_closes(load, core, client, slot):
    """The server's FIN: expected where it closes first, or after ours."""
    if client.state != CLOSING:
        load.failures += 1
    _end(load, core, client, slot, CLOSE)


@compiled
def _closed(load, client):
    load.live -= 1
    if client.state == OPENING:
        load.opening -= 1
        load.refused += 1
    elif client.state == WAITING:
        load.failures += client.waiting
    client.waiting = 0
    client.state = GONE


@compiled
def open_more(load, core):
    """Connections up to the number wanted, but not too many at once; how many were begun."""
    if load.interval != 0 and load.transactions == 1:
        return 0  # each is opened when it is due
    count = 0
    while load.live < load.connections and load.opening < load.most_opening:
        if not _open(load, core, core.tsc):
            break
        count += 1
    return count


@compiled
def _open(load, core, started):
    """Begin a connection; whether that was possible."""
    if core.control_count > CONTROL_ROWS // 2:
        return False
    handle = active_open(core, load.server, load.port, 0)
    if handle < 0:
        return False
    client = client_at(load, handle & SLOT_MASK)
    client.handle = handle
    client.state = OPENING
    client.started = started
    client.waiting = 0
    load.live += 1
    load.opening += 1
    return True


@compiled
def begin_due(load, core):
    """In an open loop: the requests whose time has come, on connections that have nothing to do; how many.

    Where none has, they wait, and their latency counts from when they were due.
    """
    if load.interval == 0:
        return 0
    count = 0
    while count < MOST_DUE:
        due = load.due_from + np.int64(load.due_count * load.interval)
        if due > core.tsc:
            break
        if load.transactions == 1:
            if load.live >= load.connections or not _open(load, core, due):
                break
        elif not _ask_idle(load, core, due):
            break
        load.due_count += 1
        count += 1
    return count


@compiled
def _ask_idle(load, core, due):
    """A request on the connection that has been idle longest; whether there was one."""
    while load.idle_count > 0:
        slot = native64(load.idle + 8 * load.idle_head)
        load.idle_head = (load.idle_head + 1) & (load.idle_rows - 1)
        load.idle_count -= 1
        client = client_at(load, slot)
        if client.state == IDLE:
            client.started = due
            _ask(load, core, client, slot)
            return True
    return False
