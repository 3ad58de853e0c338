"""SYN cookies (RFC 4987 section 3.6): with a full backlog a SYN-ACK's sequence number is all the memory of its SYN.

A cookie is 5 bits of time, 3 bits that choose the segment size, and 24 bits of a keyed hash of both, the flow and the peer's
initial sequence number. Where the peer sends timestamps, the low 5 bits of ours remember window scale and SACK.
"""

import numpy as np

from mpserve.dataplane.control import carry_ip_fields, owe_segment
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import control_at, cookie_syn_at, counters_at, listener_at
from mpserve.dataplane.siphash import absorb, absorb_addresses, finish
from mpserve.dataplane.switchboard import switchboard_at
from mpserve.dataplane.tcp.seq import add
from mpserve.dataplane.tcp.timestamps import stamp_control
from mpserve.dataplane.wire import tcp

SEGMENT_SIZES = (64, 536, 1220, 1360, 1400, 1440, 1460, 8960)
PERIOD_SHIFT = 26  # 67 s: a cookie is good for this one and the one before
_NO_SCALE = 15
_SACK_BIT = 16


@compiled
def _period(core):
    return (core.now >> PERIOD_SHIFT) & 31


@compiled
def cookie(core, key, irs, period, size_index):
    """The initial sequence number of a SYN-ACK that nothing is kept for; its hash is of a message of 41 bytes."""
    first_byte = (np.int64(period) << 3) | np.int64(size_index)
    state = absorb(absorb_addresses(core, key), (np.int64(key.ports) << 32) | np.int64(irs))
    return (first_byte << 24) | (finish(state, (41 << 56) | first_byte) & 0xFFFFFF)


@compiled
def _size_index(mss):
    """The largest size that is not above `mss`."""
    index = 0
    for i in range(len(SEGMENT_SIZES)):
        if SEGMENT_SIZES[i] <= mss:
            index = i
    return index


@compiled
def owe_cookie(core, seg, listener, mss):
    """Answer a SYN that there is no room for."""
    iss = cookie(core, seg, seg.seq, _period(core), _size_index(mss))
    if not owe_segment(core, seg, seg.mac, iss, add(seg.seq, 1), tcp.SYN | tcp.ACK, min(core.rcvbuf, 0xFFFF)):
        return
    carry_ip_fields(core, listener_at(core, listener))
    counters_at(core.counters).syn_cookies_sent += 1
    core.cookie_at = core.now
    if core.switchboard != 0:
        switchboard_at(core.switchboard).cookie_at = core.now
    control = control_at(core, core.control_count - 1)
    control.mss = core.mss
    if seg.ts_ok == 0:
        return  # nowhere to remember what else the peer can do
    control.sack_ok = seg.sack_ok
    control.scale = core.scale if seg.scale >= 0 else -1
    stamp_control(core, seg, seg.ts_val)
    remembered = seg.scale if seg.scale >= 0 else _NO_SCALE
    if seg.sack_ok != 0:
        remembered |= _SACK_BIT
    control.ts_val = _with_low_bits(control.ts_val, remembered)


@compiled
def _with_low_bits(value, bits):
    """A timestamp with these 5 low bits, and not later than it was: later ones would look old to the peer (PAWS)."""
    changed = (value & ~31) | bits
    return changed if changed <= value else (changed - 32) & 0xFFFFFFFF


@compiled
def take_cookie(core, seg, listener):
    """Whether the segment acknowledges a cookie of ours; then the record of its SYN is at `cookie_syn_at`."""
    sent_at = core.cookie_at if core.switchboard == 0 else switchboard_at(core.switchboard).cookie_at
    if sent_at == 0 or (core.now >> PERIOD_SHIFT) - (sent_at >> PERIOD_SHIFT) > 1:
        return False
    iss, irs = add(seg.ack, -1), add(seg.seq, -1)
    period, size_index = iss >> 27, (iss >> 24) & 7
    if (_period(core) - period) & 31 > 1 or cookie(core, seg, irs, period, size_index) != iss:
        counters_at(core.counters).syn_cookies_wrong += 1
        return False
    counters_at(core.counters).syn_cookies_taken += 1
    syn = cookie_syn_at(core, 0)
    syn.remote_high, syn.remote = seg.remote_high, seg.remote
    syn.local_high, syn.local = seg.local_high, seg.local
    syn.ports, syn.hash = seg.ports, seg.hash
    syn.iss, syn.irs = iss, irs
    syn.mss = min(SEGMENT_SIZES[size_index], core.mss)
    syn.listener = listener
    syn.retries = 1  # when it was sent is not known: no round-trip time
    _recall_options(syn, seg)
    return True


@compiled
def _recall_options(syn, seg):
    scale = seg.ts_ecr & 15
    scales = seg.ts_ok != 0 and scale != _NO_SCALE
    syn.snd_scale = scale if scales else -1
    syn.sack_ok = 1 if seg.ts_ok != 0 and seg.ts_ecr & _SACK_BIT != 0 else 0
    syn.ts_ok = seg.ts_ok
    syn.ts_recent = seg.ts_val if seg.ts_ok != 0 else 0
