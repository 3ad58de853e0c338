"""From connections to the channel: unread data, EOF, WRITABLE, TIMEOUT and CLOSED events, in that order for each handle."""

from mpserve.dataplane.events import CLOSED, CONNECT, EOF, TIMEOUT, WRITABLE, emit, handle_of
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import EVENT_ROWS, conn_at, notify_get, tcb_at
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.connection import FINISHED, destroy, notify, owe_ack, release
from mpserve.dataplane.tcp.icmp_errors import last_soft_error
from mpserve.dataplane.tcp.seq import diff
from mpserve.dataplane.tcp.state import CLOSED as STATE_CLOSED
from mpserve.dataplane.tcp.state import TIME_WAIT
from mpserve.dataplane.tcp.text import deliver_from

_MOST_EVENTS_OF_ONE = 7


@compiled
def deliver(core):
    """Give the events of the connections listed, as far as the batch has room; the rest stays listed."""
    for _ in range(core.notify_count):
        if core.event_count + _MOST_EVENTS_OF_ONE > EVENT_ROWS:
            return
        slot = notify_get(core, core.notify_head)
        core.notify_head = (core.notify_head + 1) & (core.notify_rows - 1)
        core.notify_count -= 1
        tcb = tcb_at(core, slot)
        tcb.flags &= ~flags.IN_NOTIFY
        _deliver_one(core, tcb, conn_at(core, slot))


@compiled
def _deliver_one(core, tcb, conn):
    if tcb.flags & (flags.GONE | flags.UNACCEPTED):  # listed in the slot's last life
        return
    if tcb.flags & flags.NOTIFY_CONNECT:
        tcb.flags &= ~flags.NOTIFY_CONNECT
        emit(core, CONNECT, tcb.slot, handle_of(tcb), 0, 0)
    if tcb.state != STATE_CLOSED:
        _deliver_unread(core, tcb, conn)
        _deliver_eof(core, tcb, conn)
        _deliver_writable(core, tcb, conn)
        if tcb.flags & flags.NOTIFY_TIMEOUT and tcb.flags & flags.USER_CLOSED == 0:
            emit(core, TIMEOUT, tcb.slot, handle_of(tcb), 0, 0)
        tcb.flags &= ~flags.NOTIFY_TIMEOUT
        if tcb.state == TIME_WAIT and tcb.flags & flags.EOF_GIVEN:
            destroy(core, tcb, conn, FINISHED)
    if tcb.flags & flags.NOTIFY_CLOSED and tcb.state == STATE_CLOSED:
        if tcb.flags & flags.CONNECTING:
            emit(core, CONNECT, tcb.slot, handle_of(tcb), conn.reason, 0)
        emit(core, CLOSED, tcb.slot, handle_of(tcb), conn.reason, last_soft_error(tcb, conn))
        release(core, tcb)


@compiled
def _deliver_unread(core, tcb, conn):
    """Kept data into the arena, if the channel reads; then the window may open."""
    if conn.rcv_queued == 0 or tcb.flags & (flags.READING | flags.READ_ONCE) == 0:
        return
    if deliver_from(core, tcb, conn, core.arena_bytes - core.arena_used) > 0:
        tcb.flags &= ~flags.READ_ONCE
    if conn.rcvbuf - conn.rcv_queued - diff(tcb.rcv_adv, tcb.rcv_nxt) >= min(2 * tcb.mss, conn.rcvbuf // 2):
        owe_ack(core, tcb)
    if conn.rcv_queued > 0 and tcb.flags & (flags.READING | flags.READ_ONCE):
        notify(core, tcb, 0)


@compiled
def _deliver_eof(core, tcb, conn):
    reads = tcb.flags & (flags.READING | flags.READ_ONCE)
    if tcb.flags & flags.NOTIFY_EOF and conn.rcv_queued == 0 and reads:
        tcb.flags = (tcb.flags & ~(flags.NOTIFY_EOF | flags.READ_ONCE)) | flags.EOF_GIVEN
        emit(core, EOF, tcb.slot, handle_of(tcb), 0, 0)


@compiled
def _deliver_writable(core, tcb, conn):
    if tcb.flags & flags.WANT_WRITABLE and tcb.snd_queued <= conn.sndbuf // 2:
        tcb.flags &= ~flags.WANT_WRITABLE
        emit(core, WRITABLE, tcb.slot, handle_of(tcb), 0, 0)
