"""The active OPEN, RFC 9293 section 3.10.1: a connection of ours begins, in SYN_SENT, on a port chosen by RFC 6056."""

import numpy as np

from mpserve.dataplane.events import handle_of
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.layout import CONN, conn_at, core_at, seg_at, tcb_at
from mpserve.dataplane.neighbor import next_hop
from mpserve.dataplane.rss import comes_home
from mpserve.dataplane.sharing import PYTHON, give_back, take
from mpserve.dataplane.siphash import absorb_addresses, finish
from mpserve.dataplane.steering import NOBODY, owner_elsewhere
from mpserve.dataplane.tcp import flags
from mpserve.dataplane.tcp.backlog import find_syn, initial_sequence_number
from mpserve.dataplane.tcp.connection import open_connection, owe_output
from mpserve.dataplane.tcp.rack import clear_rack
from mpserve.dataplane.tcp.seq import add
from mpserve.dataplane.tcp.settings import default_settings
from mpserve.dataplane.tcp.state import SYN_SENT
from mpserve.dataplane.tcp.table import find, flow_hash
from mpserve.dataplane.tcp.timewait import find_time_wait

TABLE_FULL, NO_PORT, NO_ROUTE, IN_USE = -1, -2, -3, -4
FIRST_PORT, PORTS = 32_768, 28_232  # up to 60999, as on Linux
_CONN_BYTES = CONN.itemsize


@unit("connect")
def connect(core_address, remote, remote_port, local_port):
    """Begin a connection to an address (v4-mapped low half) and port; its handle, or TABLE_FULL, NO_PORT, NO_ROUTE, IN_USE.

    `local_port` 0 has one chosen. The SYN leaves in the next turn; a CONNECT event tells the outcome.
    """
    core = core_at(core_address)
    take(core, PYTHON)
    result = active_open(core, remote, remote_port, local_port)
    give_back(core)
    return result


@compiled
def active_open(core, remote, remote_port, local_port):
    """As the unit `connect`, for compiled code that owns the core."""
    if not _has_route(core, remote):
        return NO_ROUTE
    if core.free_slot_count == 0:
        return TABLE_FULL
    key = seg_at(core.seg)  # the record of the segment at hand serves as the key: no segment is
    key.remote_high = key.local_high = 0
    key.remote, key.local = remote, core.address
    if local_port != 0:
        if not _is_free(core, key, remote_port, local_port):
            return IN_USE
    elif not _choose_port(core, key, remote_port):
        return NO_PORT
    slot = open_connection(core, key)
    _begin(core, tcb_at(core, slot), conn_at(core, slot))
    return handle_of(tcb_at(core, slot))


@compiled
def _has_route(core, remote):
    """Whether the next hop is on the link; nobody is who we are ourselves, a network's broadcast, or a group."""
    address = remote & 0xFFFFFFFF
    if remote == core.address or address >> 24 == 0 or address >> 24 == 127 or address >> 28 >= 14:
        return False
    hop = next_hop(core, remote)
    host = hop & ~core.prefix_mask & 0xFFFFFFFF
    if core.prefix_mask < 0xFFFFFFFE and host == ~core.prefix_mask & 0xFFFFFFFF:
        return False
    return ((hop ^ core.address) & core.prefix_mask) == 0


@compiled
def _is_free(core, key, remote_port, local_port):
    """Fill in the key's ports; whether no connection, in whatever state, has that four-tuple."""
    key.ports = (remote_port << 16) | local_port
    key.hash = flow_hash(core, key.remote, key.local, key.ports)
    taken = find(core.flows, core.flow_count - 1, key, core.conns, _CONN_BYTES) >= 0
    if taken or find_syn(core, key) >= 0 or find_time_wait(core, key) >= 0:
        return False
    return core.switchboard == 0 or owner_elsewhere(core, key) == NOBODY


@compiled
def _choose_port(core, key, remote_port):
    """RFC 6056 section 3.3.3: from a keyed hash of the destination on, so that another destination tells nothing.

    In a group each member takes one of so many ports, so that no two take the same; and of its own, where it can tell, one whose
    replies come to its queue (Fastsocket's receive flow deliver).
    """
    start = finish(absorb_addresses(core, key), (34 << 56) | np.int64(remote_port)) & 0x7FFFFFFF
    members = max(core.members, 1)
    for _ in range(PORTS // members):
        core.next_port += 1
        port = FIRST_PORT + (start + core.next_port) % (PORTS // members) * members + core.member
        if core.switchboard != 0 and not comes_home(core, key.remote, key.local, remote_port, port):
            continue
        if _is_free(core, key, remote_port, port):
            return True
    return False


@compiled
def _begin(core, tcb, conn):
    tcb.state = SYN_SENT
    tcb.flags |= flags.CONNECTING | flags.READING | flags.RETRANSMIT
    tcb.snd_una = initial_sequence_number(core, conn)
    tcb.snd_nxt = add(tcb.snd_una, 1)
    tcb.recover = tcb.snd_nxt
    tcb.snd_scale = 0
    tcb.rcv_scale = core.scale
    tcb.snd_wnd = tcb.max_wnd = 0
    tcb.snd_wl1 = tcb.snd_wl2 = 0
    tcb.rcv_nxt = tcb.rcv_adv = tcb.rcv_acked = 0
    tcb.mss = core.mss
    tcb.cwnd = core.mss
    conn.mac = 0
    conn.listener = -1
    default_settings(core, conn, core.now)
    clear_rack(conn, tcb.snd_nxt)
    conn.sent_at = core.now
    owe_output(core, tcb)
