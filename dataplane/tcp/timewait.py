"""TIME_WAIT, RFC 9293 section 3.6.1: a bounded ring of 64-byte entries, the oldest evicted and counted.

All wait equally long, so the ring is in order of expiry; an entry whose wait was restarted goes to the ring's end when it
comes to the front.
"""

from mpserve.dataplane.control import owe_segment
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import TIME_WAIT, counters_at, time_wait_at
from mpserve.dataplane.tcp.seq import after, diff
from mpserve.dataplane.tcp.table import find, insert, remove
from mpserve.dataplane.tcp.timestamps import stamp_control
from mpserve.dataplane.wire.tcp import ACK, FIN, RST, SYN

_SIZE = TIME_WAIT.itemsize


@compiled
def find_time_wait(core, key):
    return find(core.wait_flows, core.wait_flow_count - 1, key, core.time_waits, _SIZE)


@compiled
def enter_time_wait(core, key, snd_nxt, rcv_nxt, wnd, ts_recent):
    """Hold a connection's four-tuple for two maximum segment lifetimes."""
    if core.wait_used == core.time_wait_count:
        counters_at(core.counters).time_wait_evicted += 1
        _drop_oldest(core)
    index = (core.wait_head + core.wait_used) % core.time_wait_count
    core.wait_used += 1
    entry = time_wait_at(core, index)
    entry.remote_high, entry.remote = key.remote_high, key.remote
    entry.local_high, entry.local = key.local_high, key.local
    entry.ports, entry.hash = key.ports, key.hash
    entry.snd_nxt, entry.rcv_nxt = snd_nxt, rcv_nxt
    entry.until = core.now + core.time_wait_us
    entry.refreshed = 0
    entry.wnd = wnd
    entry.ts_recent = ts_recent
    insert(core.wait_flows, core.wait_flow_count - 1, entry.hash, index)


@compiled
def _drop_oldest(core):
    leave_time_wait(core, core.wait_head)
    core.wait_head = (core.wait_head + 1) % core.time_wait_count
    core.wait_used -= 1


@compiled
def leave_time_wait(core, index):
    """Free a four-tuple; its ring entry stays until it comes to the front."""
    entry = time_wait_at(core, index)
    if entry.until != 0:
        remove(core.wait_flows, core.wait_flow_count - 1, entry.hash, index)
        entry.until = 0


@compiled
def expire_time_waits(core, now):
    while core.wait_used > 0:
        entry = time_wait_at(core, core.wait_head)
        if entry.until > now:
            if entry.refreshed == 0:
                return
            _move_to_end(core, entry)
        else:
            _drop_oldest(core)


@compiled
def _move_to_end(core, entry):
    until, snd_nxt, rcv_nxt = entry.until, entry.snd_nxt, entry.rcv_nxt
    wnd, ts_recent = entry.wnd, entry.ts_recent
    old = core.wait_head
    leave_time_wait(core, old)
    core.wait_used -= 1
    core.wait_head = (old + 1) % core.time_wait_count
    enter_time_wait(core, entry, snd_nxt, rcv_nxt, wnd, ts_recent)
    moved = time_wait_at(core, (core.wait_head + core.wait_used - 1) % core.time_wait_count)
    moved.until = until


@compiled
def _may_reuse(entry, seg):
    """RFC 6191: a SYN that is newer by its timestamp, or by its sequence number (RFC 1122 section 4.2.2.13)."""
    if seg.ts_ok != 0 and entry.ts_recent != 0 and after(seg.ts_val, entry.ts_recent):
        return True
    return after(seg.seq, entry.rcv_nxt)


@compiled
def time_wait_arrives(core, index, seg):
    """RFC 9293 section 3.10.7.4 in TIME_WAIT. True if the segment is a SYN that may open the flow anew."""
    entry = time_wait_at(core, index)
    if seg.flags & RST:
        return False  # RFC 1337: ignored, or an old RST would end the wait
    if seg.flags & SYN and seg.flags & ACK == 0 and _may_reuse(entry, seg):
        leave_time_wait(core, index)
        return True
    if seg.flags & FIN:
        entry.until = core.now + core.time_wait_us
        entry.refreshed = 1
    if seg.length > 0 or seg.flags & (FIN | SYN) or diff(seg.seq, entry.rcv_nxt) != 0:
        if owe_segment(core, seg, seg.mac, entry.snd_nxt, entry.rcv_nxt, ACK, entry.wnd) and entry.ts_recent != 0:
            stamp_control(core, entry, entry.ts_recent)
    return False
