"""The poll loop of a flood: honest clients at a pace, and SYNs between their frames.

With a pace, the SYNs have one of their own, and what the device has no room for is lost, as a NIC loses it. Without one
(interval 0) each honest frame is followed by its share of SYNs, and everything waits for room.
"""

import numpy as np

from benchmarks.flood.pace import next_due, pace_at, rest
from benchmarks.flood.syns import is_of_flood, syns_at, write_syn
from mpserve.apps.load.small.clients import (
    BURST,
    CLOSED,
    QUEUE,
    RESTING,
    WAITING,
    client_at,
    frames_arrive,
    generator_at,
    is_one_shot,
    open_client,
    scan,
    send_request,
    take_mbuf,
)
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.mbuf import data_address, set_frame_length
from mpserve.dataplane.memory import call0, call2, call4, native64, record_at, set_native64

ONE = 1 << 32  # a SYN owed
MOST_OWED = 256 * ONE
MOST_BURSTS = 16  # received in one pass

FLOOD = np.dtype(
    [
        (n, "i8")
        for n in (
            "syns requests_pace opens_pace "
            "ratio owed_a_frame owed_a_cycle owed_at owed following out out_count "
            "syns_due syns_lost syns_left_out honest_due honest_lost"
        ).split()
    ]
)
flood_at = record_at(FLOOD)


@compiled
def _rest_done(gen, flood):
    for i in range(gen.done_count):
        client = native64(gen.done + 8 * i)
        rest(pace_at(flood.opens_pace if client >= gen.one_shots else flood.requests_pace), client)
    gen.done_count = 0


@compiled
def _go_on(gen, pace, now):
    """Have every client of this pace whose turn it is send its next request, or open its next connection."""
    while gen.queued < QUEUE - BURST:
        address = next_due(pace, now)
        if address == 0:
            return
        client = client_at(address)
        if client.state != RESTING:
            continue  # it was reset meanwhile
        if is_one_shot(gen, client):
            client.state = CLOSED
            open_client(gen, client, now)
            continue
        client.state, client.sent_at = WAITING, now
        mbuf = take_mbuf(gen)
        if mbuf != 0:
            send_request(gen, client, mbuf, now)


@compiled
def _owe_syns(flood, now):
    """The SYNs that are due by now. A loop that can't keep up leaves some out (counted)."""
    flood.owed += (now - flood.owed_at) * flood.owed_a_cycle
    flood.owed_at = now
    if flood.owed > MOST_OWED and flood.owed_a_cycle > 0:
        flood.syns_left_out += (flood.owed - MOST_OWED) >> 32
        flood.owed = MOST_OWED


@compiled
def _fill(gen, flood, moved):
    """Make up a burst: an honest frame, its share of SYNs, the next; `moved` honest ones were before, returns how many are."""
    while flood.out_count < BURST:
        if flood.following > 0 and flood.owed >= ONE:
            mbuf = take_mbuf(gen)
            if mbuf == 0:
                break
            set_frame_length(mbuf, write_syn(syns_at(flood.syns), data_address(mbuf)))
            flood.owed -= ONE
            flood.following -= 1
            flood.syns_due += 1
        elif moved < gen.queued:
            mbuf = native64(gen.queued_pkts + 8 * moved)
            moved += 1
            flood.owed += flood.owed_a_frame
            flood.following = flood.ratio
            flood.honest_due += 1
        elif flood.owed >= ONE:
            flood.following = 1
            continue
        else:
            break
        set_native64(flood.out + 8 * flood.out_count, mbuf)
        flood.out_count += 1
    return moved


@compiled
def _send(gen, flood):
    """Hand honest frames and SYNs to the device, as far as it takes them; whether there were any."""
    moved, any_sent = 0, False
    while True:
        moved = _fill(gen, flood, moved)
        if flood.out_count == 0:
            break
        sent = call4(gen.tx, gen.port, gen.queue, flood.out, flood.out_count)
        any_sent |= sent > 0
        left = flood.out_count - sent
        for i in range(left if sent > 0 else 0):
            set_native64(flood.out + 8 * i, native64(flood.out + 8 * (sent + i)))
        flood.out_count = left
        if left > 0:
            break
    for i in range(gen.queued - moved if moved > 0 else 0):
        set_native64(gen.queued_pkts + 8 * i, native64(gen.queued_pkts + 8 * (moved + i)))
    gen.queued -= moved
    return any_sent


@compiled
def _lose_rest(gen, flood):
    """The device is full: what else is due now is lost, whoever's it is."""
    for i in range(flood.out_count):
        if is_of_flood(data_address(native64(flood.out + 8 * i))):
            flood.syns_lost += 1
        else:
            flood.honest_lost += 1
    call2(gen.free, flood.out, flood.out_count)
    call2(gen.free, gen.queued_pkts, gen.queued)
    flood.honest_due += gen.queued
    flood.honest_lost += gen.queued
    flood.syns_due += flood.owed >> 32
    flood.syns_lost += flood.owed >> 32
    flood.owed &= ONE - 1
    flood.out_count = gen.queued = 0


@compiled
def _receive(gen, flood, now):
    """Take in what has come; how many frames."""
    total = 0
    for _ in range(MOST_BURSTS):
        count = call4(gen.rx, gen.port, gen.queue, gen.pkts, BURST)
        if count == 0:
            break
        frames_arrive(gen, count, now)
        _rest_done(gen, flood)
        total += count
    gen.frames += total
    return total


@compiled
def _poll(gen, flood, now):
    """One pass; whether there was anything to do."""
    count = _receive(gen, flood, now)
    if now - gen.scanned_at > gen.scan_every:
        scan(gen, now)
    _go_on(gen, pace_at(flood.requests_pace), now)
    _go_on(gen, pace_at(flood.opens_pace), now)
    _owe_syns(flood, now)
    any_sent = _send(gen, flood)
    if flood.owed_a_cycle > 0 and flood.out_count > 0:
        _lose_rest(gen, flood)
    return count > 0 or any_sent


@unit("flood_generator")
def generate_flood(generator_address, flood_address, until):
    """Poll until the TSC reaches `until`. The cycles of polls that moved frames are the busy ones."""
    gen, flood = generator_at(generator_address), flood_at(flood_address)
    started = now = call0(gen.read_tsc)
    flood.owed_at = now
    while now < until:
        worked = _poll(gen, flood, now)
        after = call0(gen.read_tsc)
        gen.polls += 1
        if worked:
            gen.busy_polls += 1
            gen.busy_cycles += after - now
        now = after
    gen.cycles += now - started
    return gen.requests
