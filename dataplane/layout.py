"""What a core is made of: the record types of the stack, and how compiled code reaches its tables. `core` lays them out.

A `CORE` record holds scalars and the addresses of its tables, and is what compiled code is given: one address. Tables are
reached through the accessors at the end of this file (`tcb_at(core, slot)`), so that a call passes one pointer and never a
tuple of arrays, which would cost dozens of words a call and most of the compile time. Nothing here is shared with
another core.
"""

import numpy as np

from mpserve.dataplane.completions import NEVER as NEVER
from mpserve.dataplane.ip_records import DATAGRAM, FRAGMENT, ROUTE
from mpserve.dataplane.limits import BLOCK_BYTES as BLOCK_BYTES
from mpserve.dataplane.limits import BURST as BURST
from mpserve.dataplane.limits import EVENT_ROWS as EVENT_ROWS
from mpserve.dataplane.memory import record_at, table_of, words_of

NO_BLOCK = -1
WHEEL_BUCKETS = 4096
LINE_BYTES = 64
COMMAND_ROWS = 4096
CONTROL_ROWS = 256
MORE_SENT_RANGES = 32_768  # of all connections together, besides one for each
TX_ROWS = 1024
UNRESOLVED_ROWS = 256
NEIGHBOR_WAYS = 4
LISTENERS = 64
ARENA_BYTES = 1 << 21
SCRATCH_BYTES = 1 << 17


def _record(*fields: tuple[str, str]) -> np.dtype:
    return np.dtype(list(fields), align=True)


def _whole_lines(*fields: tuple[str, str]) -> np.dtype:
    """A record that takes whole cache lines."""
    spare = -_record(*fields).itemsize % LINE_BYTES
    return _record(*fields, *((f"spare_{n}", "i8") for n in range(spare // 8)))


# The first fields of CONN, SYN and TIME_WAIT: what a segment is matched by. Addresses are 16 bytes, v4-mapped.
KEY_FIELDS = (
    ("remote_high", "i8"),
    ("remote", "i8"),  # low half: ::ffff:a.b.c.d
    ("local_high", "i8"),
    ("local", "i8"),
    ("ports", "u4"),  # remote port << 16 | local port
    ("hash", "u4"),
)
KEY = _record(*KEY_FIELDS)
V4_MAPPED = 0xFFFF << 32

TCB = _record(  # hot: at most 128 bytes
    ("rexmit_at", "i8"),
    ("generation", "u4"),
    ("slot", "i4"),
    ("state", "u1"),
    ("snd_scale", "u1"),
    ("rcv_scale", "u1"),
    ("dup_acks", "u1"),
    ("retries", "u1"),
    ("rexmit_kind", "u1"),  # what rexmit_at is for: timers.RTO, TAIL_LOSS or REORDERING
    ("flags", "i4"),
    ("snd_una", "u4"),
    ("snd_nxt", "u4"),
    ("snd_wnd", "i4"),
    ("snd_wl1", "u4"),
    ("snd_wl2", "u4"),
    ("rcv_nxt", "u4"),
    ("rcv_adv", "u4"),  # the right edge of the window last advertised
    ("rcv_acked", "u4"),  # the last acknowledgment sent
    ("cwnd", "i4"),
    ("ssthresh", "i4"),
    ("recover", "u4"),
    ("mss", "i4"),
    ("snd_head", "i4"),  # first block of the send buffer
    ("snd_tail", "i4"),
    ("snd_queued", "i4"),  # bytes from snd_una to the end of the send buffer
    ("rto_us", "i4"),
    ("srtt_us", "i4"),
    ("rttvar_us", "i4"),
    ("sent_head", "i4"),  # what is sent and not acknowledged: ranges of SENT, by sequence number
    ("sent_tail", "i4"),
    ("sacked", "i4"),  # bytes of it that the peer has reported
    ("lost", "i4"),  # bytes of it that are lost and not sent again
    ("ts_recent", "u4"),  # RFC 7323 section 4.3
    ("max_wnd", "i4"),  # the largest window that the peer has offered
)
assert TCB.itemsize <= 128

CONN = _whole_lines(  # by the same slot
    *KEY_FIELDS,
    # what a request and its reply touch: three cache lines with the key
    ("neighbor", "i4"),
    ("settings", "i4"),  # socket options that are on (`tcp/settings.py`)
    ("mac", "i8"),
    ("rcv_queued", "i4"),
    ("ooo_head", "i4"),  # out-of-order segments, by sequence number
    ("tos", "i4"),  # of its IPv4 headers: Diffserv, and the ECN bits, which stay 0
    ("ttl", "i4"),
    ("rcvbuf", "i4"),
    ("sndbuf", "i4"),
    ("gaps_seen", "i4"),  # segments of this turn that ask for an ACK at once: out of order, or filling a hole
    ("was_out", "i4"),  # bytes not acknowledged before the last ACK that acknowledged some
    ("text_at", "i8"),  # when data came last
    ("lossy_at", "i8"),  # when a gap or a duplicate last showed that the path loses frames
    ("sent_at", "i8"),  # when data was sent last
    ("progress_at", "i8"),  # when the oldest unacknowledged data left, or was last acknowledged in part
    ("keep_at", "i8"),  # when the next keepalive probe is due
    ("rack_sent_at", "i8"),  # RFC 8985: when what was sent last, of all that is delivered, was sent
    ("rack_end", "u4"),
    ("rack_rtt_us", "i4"),
    ("min_rtt_us", "i4"),
    ("fack", "u4"),  # the end of what is delivered, holes or not
    ("dsack_start", "u4"),  # what has come twice, to be reported once (RFC 2883); empty: nothing
    ("dsack_end", "u4"),
    ("rcv_round_at", "i8"),  # when this round of measuring the receiver's speed began ...
    ("rcv_round", "u4"),  # ... and rcv_nxt then
    ("user_timeout_ms", "i4"),  # 0: none
    ("delack_at", "i8"),
    ("idle_us", "i8"),
    # what they don't
    ("listener", "i4"),
    ("rcv_head", "i4"),  # unread data, in order
    ("rcv_tail", "i4"),
    ("ooo_blocks", "i4"),
    ("next", "i4"),  # in the listener's accept queue
    ("idle_at", "i8"),  # the handler's timeout
    ("state_at", "i8"),
    ("reason", "i4"),
    ("soft_error", "i4"),  # the last ICMP error, type << 8 | code; 0: none (`tcp/icmp_errors.py`)
    ("soft_error_una", "u4"),  # snd_una when it came
    ("ooo_newest", "u4"),  # where the segment kept last begins: the first SACK block tells of it
    ("reported_1", "u4"),  # where the blocks of the last SACK option begin, in their order
    ("reported_2", "u4"),
    ("reported_3", "u4"),
    ("reported_4", "u4"),
    ("fin_seq", "u4"),  # of a FIN behind a gap (FIN_KEPT)
    ("ooo_tail", "i4"),
    ("ts_recent_at", "i8"),  # when ts_recent last changed
    ("dsack_round", "u4"),
    ("reo_steps", "i4"),  # the reordering window, in quarters of the least round-trip time
    ("reo_persist", "i4"),
    ("undo_cwnd", "i4"),  # before the last recovery (`tcp/undo.py`); 0: nothing to go back to
    ("undo_ssthresh", "i4"),
    ("undo_from", "u4"),  # snd_una then
    ("undo_bytes", "i4"),  # sent again since, and not reported as duplicates
    ("undo_w_max", "f8"),
    ("tail_end", "u4"),  # RFC 8985 section 7: snd_nxt as the tail loss probe left
    ("linger_ms", "i4"),
    ("keep_idle_ms", "i4"),
    ("keep_interval_ms", "i4"),
    ("keep_count", "i4"),
    ("keep_probes", "i4"),  # unanswered
    ("fd", "i4"),  # where connections have one (`handles`)
    ("epoch_at", "i8"),  # CUBIC: when this congestion avoidance began; 0: not yet
    ("w_max", "f8"),
    ("w_prior", "f8"),
    ("w_est", "f8"),
    ("k", "f8"),
)

SENT = _record(  # a range of sequence numbers that was sent at one time (`tcp/sent.py`)
    ("start", "u4"),
    ("end", "u4"),
    ("sent_at", "i8"),
    ("next", "i4"),
    ("marks", "i4"),
)

SYN = _record(  # a SYN_RECEIVED connection in the backlog
    *KEY_FIELDS,
    ("iss", "u4"),
    ("irs", "u4"),
    ("mss", "i4"),
    ("snd_wnd", "i4"),
    ("snd_scale", "i4"),  # -1: the peer does not scale
    ("listener", "i4"),
    ("retries", "i4"),
    ("used", "i4"),
    ("sack_ok", "i4"),
    ("ts_ok", "i4"),
    ("ts_recent", "u4"),
    ("at", "i8"),
    ("mac", "i8"),
)

TIME_WAIT = _record(  # 64 bytes an entry
    *KEY_FIELDS,
    ("until", "i8"),  # 0: not in use
    ("snd_nxt", "u4"),
    ("rcv_nxt", "u4"),
    ("refreshed", "u2"),
    ("wnd", "u2"),  # the window field of the ACKs
    ("ts_recent", "u4"),  # 0: the connection had no timestamps
)
assert TIME_WAIT.itemsize <= 64

LISTENER = _record(
    ("address", "i8"),  # v4-mapped low half; 0: any of ours
    ("port", "i4"),
    ("used", "i4"),
    ("accepts", "i8"),  # connections that the channel has asked for
    ("queue_head", "i4"),
    ("queue_tail", "i4"),
    ("queued", "i4"),
    ("backlogged", "i4"),
    ("max_segment", "i4"),  # 0: what the MTU allows
    ("defer_ms", "i4"),  # how long an accept waits for data; 0: not at all
    ("tos", "i4"),  # of its SYN-ACKs, and what its connections begin with
    ("ttl", "i4"),  # 0: the default
)

NEIGHBOR = _record(
    ("address", "i8"),
    ("mac", "i8"),  # 0: not resolved
    ("updated_at", "i8"),
    ("asked_at", "i8"),
    ("unanswered", "i8"),
)

BLOCK = _record(("next", "i4"), ("start", "i4"), ("end", "i4"), ("seq", "u4"))
TIMER = _record(("deadline", "i8"), ("next", "i4"), ("prev", "i4"), ("bucket", "i4"), ("armed", "i4"))

SEG = _record(  # the segment at hand; plain int64 so that arithmetic is
    *KEY_FIELDS,
    ("seq", "i8"),
    ("ack", "i8"),
    ("wnd", "i8"),
    ("flags", "i8"),
    ("payload", "i8"),  # address
    ("length", "i8"),  # of the payload
    ("mss", "i8"),  # option, 0: absent
    ("scale", "i8"),  # option, -1: absent
    ("sack_ok", "i8"),  # option SACK-permitted, 0: absent
    ("ts_ok", "i8"),  # option timestamps, 0: absent
    ("ts_val", "i8"),
    ("ts_ecr", "i8"),
    ("sacks", "i8"),  # address of the SACK option's blocks
    ("sack_count", "i8"),
    ("mac", "i8"),  # the frame's source
    ("frame", "i8"),  # address of its Ethernet header, and ...
    ("datagram", "i8"),  # ... of its IPv4 header, which may stand elsewhere
)

CONTROL = _record(  # a frame owed that belongs to no TCB
    *KEY_FIELDS,
    ("tos", "i8"),
    ("ttl", "i8"),
    ("kind", "i8"),
    ("seq", "i8"),
    ("ack", "i8"),
    ("flags", "i8"),
    ("wnd", "i8"),
    ("mss", "i8"),  # 0: no options
    ("scale", "i8"),  # -1: no window scale option
    ("sack_ok", "i8"),
    ("ts_ok", "i8"),
    ("ts_val", "i8"),
    ("ts_ecr", "i8"),
    ("mac", "i8"),
    ("block", "i8"),
    ("length", "i8"),
)

COUNTER_NAMES = (
    # machine
    "turns busy_turns busy_cycles standby_turns events commands rx_frames rx_bytes tx_frames tx_bytes "
    "tx_retried mbuf_shortage sleeps "
    # drops, in the order a frame meets them
    "drop_runt drop_not_ours drop_ethertype drop_oversize "
    "drop_arp_malformed drop_ip_malformed drop_ip_checksum drop_ip_fragment drop_ip_options drop_ip_martian drop_ip_not_ours "
    "drop_ip_protocol drop_icmp_malformed drop_icmp_type drop_tcp_malformed drop_tcp_checksum drop_tcp_options drop_tcp_flags "
    "drop_no_listener drop_accept_full drop_connections_full drop_out_of_window drop_ack_unsent drop_no_ack "
    "drop_paws drop_no_timestamp "
    "drop_after_close drop_no_block drop_ooo_full drop_control_full drop_control_unsent drop_unresolved drop_duplicate "
    "drop_window_overrun "
    "drop_icmp_quote drop_icmp_quote_not_ours drop_icmp_no_connection drop_icmp_sequence drop_icmp_mtu "
    "drop_source_group drop_tcp_port_zero drop_fragment_overlap drop_fragment_tiny drop_fragment_timeout drop_fragment_full "
    # what happened
    "neighbors_evicted arp_requests_held fragments_received reassembled icmp_soft_errors icmp_source_quenches path_mtu_lowered "
    "checksum_unfinished arp_requests_sent arp_replies_sent echo_replies "
    "connections_accepted connections_opened connections_refused connections_closed "
    "connections_reset connections_aborted connections_timed_out syns_received "
    "backlog_full syn_acks_resent syn_cookies_sent syn_cookies_taken syn_cookies_wrong rsts_sent "
    "challenge_acks challenge_acks_held drop_ack_too_old acks_delayed out_of_order retransmits fast_retransmits timeouts "
    "sacks_received sacks_sent sacks_refused dsacks_received reordering_waits tail_loss_probes "
    "zero_window_probes keepalive_probes time_wait_evicted "
    "slow_readers stale_commands recorded_lost accept_events read_events bytes_read bytes_written "
    # between cores
    "steered_out steered_in steered_new steered_arp drop_steer_full wakes_sent"
).split()
COUNTERS = np.dtype([(name, "i8") for name in COUNTER_NAMES])

CORE = np.dtype(
    [
        (name, "i8")
        for name in (
            # ownership (decision 9) and the machine: functions by address
            "owner away_since standby_stop usleep fault "
            "rx tx alloc free read_tsc port queue pool handler handler_state "
            "unit_ingress unit_egress unit_commands unit_timers "
            # clock: us = (tsc - tsc_start) * tsc_scale >> 32 when read_tsc is set, else now as set by the host
            "now sleep_until tsc tsc_start tsc_scale return_at idle_since idle_spin_us busy_since "
            # who we are
            "mac address prefix_mask mtu mss unfinished_checksums ip_id "
            "secret_a secret_b sip_key0 sip_key1 clock_secret_a clock_secret_b "
            # settings
            "rcvbuf sndbuf rcvbuf_max sndbuf_max "
            "scale time_wait_us fin_wait_us delack_us rto_min_us rto_max_us retries syn_retries syn_ack_retries cubic "
            "accept_queue event_batch "
            # tables: address and count
            "tcbs conns connections syns syn_count time_waits time_wait_count listeners listener_count "
            "neighbors neighbor_count blocks block_data block_count timers timer_count wheel wheel_count "
            "sents sent_count free_sents free_sent_count senders "
            "routes routes_size route_count datagrams datagram_count datagram_data fragments fragment_count reassemble "
            "controls control_rows flows flow_count syn_flows syn_flow_count wait_flows wait_flow_count "
            # free lists and lists of the turn
            "free_slots free_slot_count free_blocks free_block_count free_syns free_syn_count released released_count "
            "outputs output_count delayed delayed_count notify notify_head notify_count notify_rows "
            "unresolved unresolved_count unresolved_rows next_port "
            "control_count wait_head wait_used accepts_waiting "
            "arp_second arp_requests "
            "challenge_second challenges cookie_at cookie_syn cookie_syn_count wheel_tick seg scratch counters "
            # the channel: int64 columns
            "events event_count command_table command_count command_base arena arena_used arena_bytes "
            # device bursts and the recorder
            "rx_pkts tx_pkts tx_count tx_rows spare_pkts spare_count record record_bytes record_head record_tail "
            # other cores: the segment shared with them, our number there, whether the frame at hand came from one
            "switchboard member members steered write "
            # by address, for comparison (`handles`): what makes a descriptor for each connection, what closes it; 0: nothing
            "open_fd close_fd "
        ).split()
    ]
)

core_at, seg_at, counters_at = record_at(CORE), record_at(SEG), record_at(COUNTERS)
key_at, tcb_record_at, listener_record_at = record_at(KEY), record_at(TCB), record_at(LISTENER)
tcb_at = table_of(CORE, TCB, "tcbs", "connections")
conn_at = table_of(CORE, CONN, "conns", "connections")
syn_at = table_of(CORE, SYN, "syns", "syn_count")
cookie_syn_at = table_of(CORE, SYN, "cookie_syn", "cookie_syn_count")
time_wait_at = table_of(CORE, TIME_WAIT, "time_waits", "time_wait_count")
listener_at = table_of(CORE, LISTENER, "listeners", "listener_count")
neighbor_at = table_of(CORE, NEIGHBOR, "neighbors", "neighbor_count")
block_at = table_of(CORE, BLOCK, "blocks", "block_count")
sent_at = table_of(CORE, SENT, "sents", "sent_count")
route_at = table_of(CORE, ROUTE, "routes", "routes_size")
datagram_at = table_of(CORE, DATAGRAM, "datagrams", "datagram_count")
fragment_at = table_of(CORE, FRAGMENT, "fragments", "fragment_count")
timer_at = table_of(CORE, TIMER, "timers", "timer_count")
control_at = table_of(CORE, CONTROL, "controls", "control_rows")
wheel_get, wheel_put = words_of(CORE, "wheel", "wheel_count")
free_slot_get, free_slot_put = words_of(CORE, "free_slots", "connections")
released_get, released_put = words_of(CORE, "released", "connections")
free_block_get, free_block_put = words_of(CORE, "free_blocks", "block_count")
free_sent_get, free_sent_put = words_of(CORE, "free_sents", "sent_count")
free_syn_get, free_syn_put = words_of(CORE, "free_syns", "syn_count")
output_get, output_put = words_of(CORE, "outputs", "connections")
delayed_get, delayed_put = words_of(CORE, "delayed", "connections")
unresolved_get, unresolved_put = words_of(CORE, "unresolved", "unresolved_rows")
notify_get, notify_put = words_of(CORE, "notify", "notify_rows")
tx_get, tx_put = words_of(CORE, "tx_pkts", "tx_rows")

FLOW_TABLES = ("flows", "syn_flows", "wait_flows")
VERSION_LINE = 8  # words before a flow table's buckets; the last is its version (`sharing`)
SHARED_TABLES = (*FLOW_TABLES, "conns", "syns", "time_waits", "listeners")  # what other cores look into (`steering`)
