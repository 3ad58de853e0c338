"""Clients of the load generators: compiled, closed loop, one request outstanding on each connection.

They are no full TCP: handshake, one segment at a time with the ACK in it, retransmission after a fixed time, and a reply
must come in order. A request is written over the reply that it follows, in the same mbuf, so that this end costs less
than the server; paced clients rest instead until they are told to go on. `loop` polls, and so does `benchmarks.flood.loop`.
"""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.mbuf import data_address, segments, set_frame_length
from mpserve.dataplane.memory import (
    address_of,
    call2,
    call3,
    call4,
    copy,
    load8,
    native64,
    record_at,
    set_native64,
    store16,
    store32,
)
from mpserve.dataplane.tcp.seq import add
from mpserve.dataplane.wire import arp, ethernet, tcp
from mpserve.dataplane.wire import ipv4 as ip_header
from mpserve.dataplane.wire.checksum import finish, pseudo_sum, sum_bytes

PORT = 7
FIRST_PORT, LAST_PORT = 2048, 65535
BURST = 32
QUEUE = 4096  # frames waiting for the device
RAW_WINDOW = 256  # frames on their way in raw mode
LATENCY_BUCKETS, LATENCY_SHIFT = 4096, 8  # of 256 cycles each
WINDOW = 0xFFFF
_TTL = 64
_IP, _TCP, PAYLOAD = 14, 34, 54

CLOSED, SYN_SENT, WAITING, FIN_SENT, RESTING = 0, 1, 2, 3, 4
CLIENT = np.dtype([(n, "i8") for n in "state port seq rcv_nxt received sent_at template sum".split()])
GENERATOR = np.dtype(
    [
        (n, "i8")
        for n in (
            "rx tx alloc free read_tsc port queue pool mac server_mac address server "
            "clients client_count most message one_shots paced verify raw rto scan_every scanned_at done done_count "
            "pkts queued_pkts queued spare_pkts spare latency "
            "requests failures retransmits resets attempts opened strays busy_cycles cycles polls busy_polls frames"
        ).split()
    ]
)
client_at, generator_at = record_at(CLIENT), record_at(GENERATOR)
_CLIENT_BYTES = CLIENT.itemsize


@compiled
def _client(gen, index):
    return client_at(gen.clients + index * _CLIENT_BYTES)


@compiled
def is_one_shot(gen, client):
    """The last clients of the table open a connection for each request."""
    return address_of(client) >= gen.one_shots


@compiled
def take_mbuf(gen):
    """An mbuf to send in, or 0."""
    if gen.spare == 0:
        if call3(gen.alloc, gen.pool, gen.spare_pkts, BURST) != 0:
            return 0
        gen.spare = BURST
    gen.spare -= 1
    return native64(gen.spare_pkts + 8 * gen.spare)


@compiled
def queue_frame(gen, mbuf, length):
    set_frame_length(mbuf, length)
    set_native64(gen.queued_pkts + 8 * gen.queued, mbuf)
    gen.queued += 1


@compiled
def flush(gen):
    """Hand the queue to the device, a burst at a time; what it doesn't take stays."""
    done = 0
    while done < gen.queued:
        sent = call4(gen.tx, gen.port, gen.queue, gen.queued_pkts + 8 * done, min(gen.queued - done, BURST))
        if sent == 0:
            break
        done += sent
    left = gen.queued - done
    for i in range(left if done > 0 else 0):
        set_native64(gen.queued_pkts + 8 * i, native64(gen.queued_pkts + 8 * (done + i)))
    gen.queued = left


@compiled
def _put_numbers(frame, total, seq, ack):
    """Sequence numbers and the checksum, `total` being the partial sum of the rest."""
    store32(frame + _TCP + 4, seq)
    store32(frame + _TCP + 8, ack)
    total += (seq >> 16) + (seq & 0xFFFF) + (ack >> 16) + (ack & 0xFFFF)
    store16(frame + _TCP + 16, finish(total))


@compiled
def send_request(gen, client, mbuf, now):
    frame = data_address(mbuf)
    copy(frame, client.template, PAYLOAD + gen.message)
    _put_numbers(frame, client.sum, client.seq, client.rcv_nxt)
    client.state = WAITING
    client.sent_at = now
    queue_frame(gen, mbuf, PAYLOAD + gen.message)


@compiled
def _send_bare(gen, client, mbuf, flag_bits, seq):
    """A segment without payload."""
    frame = data_address(mbuf)
    write_headers(gen, frame, client.port, flag_bits, 0)
    total = pseudo_sum(gen.address, gen.server, ip_header.PROTOCOL_TCP, tcp.HEADER)
    _put_numbers(frame, total + sum_bytes(frame + _TCP, tcp.HEADER), seq, client.rcv_nxt)
    queue_frame(gen, mbuf, PAYLOAD)


@compiled
def write_headers(gen, frame, port, flag_bits, length):
    """Everything but sequence numbers and TCP checksum."""
    ethernet.write(frame, gen.server_mac, gen.mac, ethernet.TYPE_IPV4)
    ip_header.write(frame + _IP, ip_header.PROTOCOL_TCP, 0, _TTL, gen.address, gen.server, tcp.HEADER + length, 0)
    tcp.write(frame + _TCP, (port << 16) | PORT, 0, 0, tcp.HEADER, flag_bits, WINDOW)


@compiled
def open_client(gen, client, now):
    """A SYN, from a fresh port unless it is sent again; a port's distance from the first, modulo `most`, is the client."""
    mbuf = take_mbuf(gen)
    if mbuf == 0:
        return
    if client.state == CLOSED:
        gen.attempts += 1
        client.port += gen.most
        if client.port > LAST_PORT:
            client.port = FIRST_PORT + (client.port - FIRST_PORT) % gen.most
        client.seq = (now >> 4) & 0xFFFFFFFF
        frame = client.template
        write_headers(gen, frame, client.port, tcp.ACK | tcp.PSH, gen.message)
        client.sum = pseudo_sum(gen.address, gen.server, ip_header.PROTOCOL_TCP, tcp.HEADER + gen.message)
        client.sum += sum_bytes(frame + _TCP, tcp.HEADER + gen.message)
    client.state = SYN_SENT
    client.rcv_nxt = 0
    client.received = 0
    client.sent_at = now
    _send_bare(gen, client, mbuf, tcp.SYN, client.seq)


@compiled
def _send_again(gen, client, now):
    """What the client waits an answer for, once more."""
    gen.retransmits += 1
    if client.state == SYN_SENT:
        open_client(gen, client, now)
        return
    mbuf = take_mbuf(gen)
    if mbuf == 0:
        return
    if client.state == WAITING:
        send_request(gen, client, mbuf, now)
    else:
        client.sent_at = now
        _send_bare(gen, client, mbuf, tcp.FIN | tcp.ACK, client.seq)


@compiled
def scan(gen, now):
    """Open the clients that are closed, and send again what has waited too long."""
    gen.scanned_at = now
    for index in range(gen.client_count):
        if gen.queued + BURST > QUEUE:
            return
        client = _client(gen, index)
        if client.state == CLOSED:
            open_client(gen, client, now)
        elif client.state != RESTING and now - client.sent_at > gen.rto:
            _send_again(gen, client, now)


@compiled
def _arrives(gen, mbuf, now):
    """True if the mbuf was used for an answer."""
    frame = data_address(mbuf)
    if ethernet.ethertype(frame) == ethernet.TYPE_ARP:
        return _answer_arp(gen, mbuf, frame)
    if segments(mbuf) != 1 or ethernet.ethertype(frame) != ethernet.TYPE_IPV4:
        return False
    if ip_header.protocol(frame + _IP) != ip_header.PROTOCOL_TCP:
        return False
    if ip_header.destination(frame + _IP) != gen.address:
        return _stray(gen, frame)
    port = tcp.ports(frame + _TCP) & 0xFFFF
    if port < FIRST_PORT:
        return False
    client = _client(gen, (port - FIRST_PORT) % gen.most)
    if client.port != port or client.state == CLOSED:
        return False
    flag_bits = tcp.flags(frame + _TCP)
    if flag_bits & tcp.RST:
        gen.resets += 1
        client.state = CLOSED
        return False
    if client.state == SYN_SENT:
        return _synchronize(gen, client, mbuf, frame, flag_bits, now)
    return _text(gen, client, mbuf, frame, flag_bits, now)


@compiled
def _stray(gen, frame):
    """What the server sends to others than us; to nobody but those that a flood pretends to be."""
    gen.strays += 1
    if gen.verify != 0:
        length = ip_header.total_length(frame + _IP) - ip_header.HEADER
        is_syn_ack = tcp.flags(frame + _TCP) == tcp.SYN | tcp.ACK
        if not is_syn_ack or not _sum_is_good(frame, ip_header.destination(frame + _IP), gen.server, length):
            gen.failures += 1
    return False


@compiled
def _synchronize(gen, client, mbuf, frame, flag_bits, now):
    """RFC 9293 section 3.10.7.3: a SYN-ACK opens the connection, any other ACK is of an older one, which a RST ends."""
    if tcp.ack(frame + _TCP) != add(client.seq, 1):
        _send_bare(gen, client, mbuf, tcp.RST, tcp.ack(frame + _TCP))
        return True
    if flag_bits & (tcp.SYN | tcp.ACK) != tcp.SYN | tcp.ACK:
        return False
    gen.opened += 1
    client.rcv_nxt = add(tcp.seq(frame + _TCP), 1)
    client.seq = add(client.seq, 1)
    send_request(gen, client, mbuf, now)
    return True


@compiled
def _text(gen, client, mbuf, frame, flag_bits, now):
    """A reply, or part of one, or the peer's FIN."""
    header = tcp.header_length(frame + _TCP)
    length = ip_header.total_length(frame + _IP) - ip_header.HEADER - header
    if tcp.seq(frame + _TCP) != client.rcv_nxt or tcp.flags(frame + _TCP) & tcp.SYN:
        return False
    if gen.verify != 0 and not _is_echo(gen, client, frame, header, length):
        gen.failures += 1
    client.rcv_nxt = add(client.rcv_nxt, length)
    client.received += length
    if client.state == FIN_SENT:
        return flag_bits & tcp.FIN != 0 and _finish(gen, client, mbuf)
    if client.received < gen.message:
        return False
    _count_request(gen, client, now)
    client.seq = add(client.seq, gen.message)
    if is_one_shot(gen, client):
        client.state = FIN_SENT
        client.sent_at = now
        _send_bare(gen, client, mbuf, tcp.FIN | tcp.ACK, client.seq)
        return True
    if gen.paced != 0:
        _rest(gen, client)
        return False
    send_request(gen, client, mbuf, now)
    return True


@compiled
def _rest(gen, client):
    """Wait to be told to go on: the loop finds the client among those that are done."""
    client.state = RESTING
    set_native64(gen.done + 8 * gen.done_count, address_of(client))
    gen.done_count += 1


@compiled
def _count_request(gen, client, now):
    if client.received != gen.message:
        gen.failures += 1
    gen.requests += 1
    client.received = 0
    bucket = gen.latency + 8 * min((now - client.sent_at) >> LATENCY_SHIFT, LATENCY_BUCKETS - 1)
    set_native64(bucket, native64(bucket) + 1)


@compiled
def _finish(gen, client, mbuf):
    """The peer's FIN is acknowledged; the next connection is the loop's to open."""
    client.rcv_nxt = add(client.rcv_nxt, 1)
    _send_bare(gen, client, mbuf, tcp.ACK, add(client.seq, 1))
    _rest(gen, client)
    return True


@compiled
def _sum_is_good(frame, to, source, length):
    total = pseudo_sum(source, to, ip_header.PROTOCOL_TCP, length)
    return finish(total + sum_bytes(frame + _TCP, length)) == 0


@compiled
def _is_echo(gen, client, frame, header, length):
    """Checksum and content."""
    segment = frame + _TCP
    if not _sum_is_good(frame, gen.address, gen.server, header + length) or client.received + length > gen.message:
        return False
    wanted = client.template + PAYLOAD + client.received
    for i in range(length):
        if load8(segment + header + i) != load8(wanted + i):
            return False
    return True


@compiled
def _answer_arp(gen, mbuf, frame):
    packet = frame + 14
    if arp.operation(packet) != arp.REQUEST or arp.target_address(packet) != gen.address:
        return False
    sender_mac, sender = arp.sender_mac(packet), arp.sender_address(packet)
    ethernet.write(frame, sender_mac, gen.mac, ethernet.TYPE_ARP)
    arp.write(packet, arp.REPLY, gen.mac, gen.address, sender_mac, sender)
    queue_frame(gen, mbuf, ethernet.HEADER + arp.LENGTH)
    return True


@compiled
def frames_arrive(gen, count, now):
    """Take in `count` frames and answer them."""
    unused = 0
    for i in range(count):
        mbuf = native64(gen.pkts + 8 * i)
        if not _arrives(gen, mbuf, now):
            set_native64(gen.pkts + 8 * unused, mbuf)
            unused += 1
    if unused > 0:
        call2(gen.free, gen.pkts, unused)
