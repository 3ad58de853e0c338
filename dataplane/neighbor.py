"""The neighbour cache: ARP both ways (RFC 826), aged as RFC 1122 section 2.3.2.1 asks.

A bounded set-associative table: an address may stand in one of NEIGHBOR_WAYS places, the one heard of longest ago makes
way. A connection remembers the place; `resolve` checks that it still holds the right address. Whoever fills the table by
asking for us takes only places that nobody needs; whoever fills it with connections makes others be asked for again, so
many a second, and their frames go meanwhile where their segments came from.
"""

from mpserve.dataplane import control
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.layout import NEIGHBOR_WAYS, counters_at, neighbor_at, route_at, unresolved_put
from mpserve.dataplane.memory import mix
from mpserve.dataplane.wire import arp
from mpserve.dataplane.wire.ethernet import BROADCAST, is_group

STALE_US = 60_000_000
ASK_EVERY_US = 1_000_000
GIVE_UP_AFTER = 3  # unanswered requests
MOST_REQUESTS = 200  # a second


@compiled
def next_hop(core, remote):
    """The address on the link that leads to `remote`: the first route's that matches; `remote` itself where none does."""
    for i in range(core.route_count):
        route = route_at(core, i)
        if (remote ^ route.network) & route.mask == 0:
            return route.gateway if route.gateway != 0 else remote
    return remote


@compiled
def _first_way(core, address):
    spread = mix(address ^ core.secret_a, core.secret_b)
    return spread & (core.neighbor_count - 1) & ~(NEIGHBOR_WAYS - 1)


@compiled
def find_neighbor(core, address):
    """The place of an address, or -1."""
    first = _first_way(core, address)
    for way in range(first, first + NEIGHBOR_WAYS):
        if neighbor_at(core, way).address == address:
            return way
    return -1


@compiled
def _last_of(entry):
    """When an entry was last answered for or asked for."""
    return max(entry.updated_at, entry.asked_at)


@compiled
def _place_for(core, address):
    """The place of an address, or if it has none the one to take for it."""
    first = _first_way(core, address)
    oldest = first
    for way in range(first, first + NEIGHBOR_WAYS):
        entry = neighbor_at(core, way)
        if entry.address == address:
            return way
        if _last_of(entry) < _last_of(neighbor_at(core, oldest)):
            oldest = way
    return oldest


@compiled
def _claim(core, address):
    """The place of an address, taken from another if it has none."""
    place = _place_for(core, address)
    entry = neighbor_at(core, place)
    if entry.address == address:
        return place
    if entry.address != 0:
        counters_at(core.counters).neighbors_evicted += 1
    entry.address = address
    entry.mac = 0
    entry.updated_at = 0
    entry.asked_at = 0
    entry.unanswered = 0
    return place


@compiled
def _is_spare(core, address, now):
    """Whether `address` has a place, or could have one that nobody needs."""
    entry = neighbor_at(core, _place_for(core, address))
    return entry.address == address or _last_of(entry) == 0 or now - _last_of(entry) > STALE_US


@compiled
def learn(core, remote, mac, now):
    """Note the MAC that a completed handshake with `remote` came from, unless a fresher answer is known; its place."""
    place = _claim(core, next_hop(core, remote))
    entry = neighbor_at(core, place)
    if entry.mac == 0 or now - entry.updated_at > STALE_US:
        confirm(core, place, mac, now)
    return place


@compiled
def confirm(core, place, mac, now):
    entry = neighbor_at(core, place)
    entry.mac = mac
    entry.updated_at = now
    entry.unanswered = 0


@compiled
def doubt(core, conn, now):
    """TCP's negative advice (RFC 1122 section 3.3.1.4): what it sends gets no answer. The next hop is asked for again."""
    place = find_neighbor(core, next_hop(core, conn.remote))
    if place >= 0:
        entry = neighbor_at(core, place)
        entry.updated_at = min(entry.updated_at, now - STALE_US - 1)


@compiled
def trust(core, conn, mac, now):
    """TCP's positive advice: after retransmissions, a segment from this MAC has acknowledged what was sent there."""
    place = find_neighbor(core, next_hop(core, conn.remote))
    if place >= 0 and (neighbor_at(core, place).mac == mac or neighbor_at(core, place).mac == 0):
        confirm(core, place, mac, now)


@compiled
def resolve(core, conn, now):
    """The MAC for a connection's frames, or 0 (counted) when nobody answers for its next hop."""
    hop = next_hop(core, conn.remote)
    if conn.neighbor < 0 or neighbor_at(core, conn.neighbor).address != hop:
        conn.neighbor = _claim(core, hop)
    entry = neighbor_at(core, conn.neighbor)
    if entry.mac != 0 and now - entry.updated_at <= STALE_US:
        return entry.mac
    return _resolve_stale(core, conn, entry, now)


@compiled
def is_given_up(core, conn):
    """Whether nobody has answered for the connection's next hop."""
    return neighbor_at(core, conn.neighbor).unanswered > GIVE_UP_AFTER


@compiled
def await_neighbor(core, slot):
    """Have a connection's output tried again when an ARP packet comes; with a full list its timer has to do."""
    if core.unresolved_count < core.unresolved_rows:
        unresolved_put(core, core.unresolved_count, slot)
        core.unresolved_count += 1


@compiled
def _resolve_stale(core, conn, entry, now):
    """Ask; until some requests have stayed unanswered, what was last known will do, and so will the last frame's source."""
    if ((entry.address ^ core.address) & core.prefix_mask) != 0:
        return conn.mac  # beyond the link, and no route leads there: back the way its segments came
    _ask(core, entry, now)
    if entry.unanswered > GIVE_UP_AFTER:
        counters_at(core.counters).drop_unresolved += 1
        return 0
    return entry.mac if entry.mac != 0 else conn.mac


@compiled
def _may_ask(core, now):
    """Whether another request may leave in this second (of 2**20 us); otherwise counts it as held."""
    if core.arp_second != now >> 20:
        core.arp_second = now >> 20
        core.arp_requests = 0
    if core.arp_requests >= MOST_REQUESTS:
        counters_at(core.counters).arp_requests_held += 1
        return False
    core.arp_requests += 1
    return True


@compiled
def _ask(core, entry, now):
    if entry.asked_at != 0 and now - entry.asked_at < ASK_EVERY_US:
        return
    if not _may_ask(core, now) or not control.control_room(core):
        return
    entry.asked_at = now
    entry.unanswered += 1
    if entry.unanswered > GIVE_UP_AFTER:
        entry.mac = 0
    control.owe_control(core, control.ARP_REQUEST, entry.address, core.address, BROADCAST)
    counters_at(core.counters).arp_requests_sent += 1


@compiled
def _is_a_station(mac):
    """A group has no address, and to take 0 for one would be to forget the neighbour's."""
    return mac != 0 and not is_group(mac)


@compiled
def arp_arrives(core, frame, length, now):
    """RFC 826: update what we know of the sender, answer requests for our address. False if nothing can be learned from it.

    A sender that is not known is added if it asks for us and there is a spare place; an answer to nothing adds nobody.
    """
    counters = counters_at(core.counters)
    packet = frame + 14
    if length < 14 + arp.LENGTH or not arp.is_ethernet_ipv4(packet) or not _is_a_station(arp.sender_mac(packet)):
        counters.drop_arp_malformed += 1
        return False
    sender = (core.address & ~0xFFFFFFFF) | arp.sender_address(packet)
    asks_us = arp.operation(packet) == arp.REQUEST and arp.target_address(packet) == core.address & 0xFFFFFFFF
    if sender == core.address:
        return False
    place = find_neighbor(core, sender)
    on_link = ((sender ^ core.address) & core.prefix_mask) == 0
    if place < 0 and asks_us and on_link and _is_spare(core, sender, now):
        place = _claim(core, sender)
    if place >= 0:
        confirm(core, place, arp.sender_mac(packet), now)
    if asks_us and control.control_room(core):
        control.owe_control(core, control.ARP_REPLY, sender, core.address, arp.sender_mac(packet))
        counters.arp_replies_sent += 1
    return True
