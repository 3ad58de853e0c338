"""The load generator's poll loop: clients that answer at once, or frames without TCP that are sent back and forth."""

from mpserve.apps.load.small.clients import (
    BURST,
    CLOSED,
    FIRST_PORT,
    PAYLOAD,
    QUEUE,
    RAW_WINDOW,
    client_at,
    flush,
    frames_arrive,
    generator_at,
    open_client,
    queue_frame,
    scan,
    take_mbuf,
    write_headers,
)
from mpserve.dataplane.jit import compiled, unit
from mpserve.dataplane.mbuf import data_address
from mpserve.dataplane.memory import call0, call4, native32, native64, set_native32
from mpserve.dataplane.wire import tcp


@compiled
def _open_done(gen, now):
    """The next connections of the clients whose last one is over."""
    for i in range(gen.done_count):
        client = client_at(native64(gen.done + 8 * i))
        client.state = CLOSED
        open_client(gen, client, now)
    gen.done_count = 0


@compiled
def _raw_burst(gen, count):
    """Send every frame that came back once more."""
    for i in range(count):
        mbuf = native64(gen.pkts + 8 * i)
        frame = data_address(mbuf)
        here, there = native32(frame), native32(frame + 6)
        set_native32(frame, there)
        set_native32(frame + 6, here)
        queue_frame(gen, mbuf, PAYLOAD + gen.message)
    gen.requests += count


@compiled
def _raw_fill(gen, now):
    """A window of frames, while none comes back: the first that a new link carries are lost."""
    gen.scanned_at = now
    for _ in range(RAW_WINDOW):
        mbuf = take_mbuf(gen)
        if mbuf == 0 or gen.queued >= QUEUE:
            return
        write_headers(gen, data_address(mbuf), FIRST_PORT, tcp.ACK, gen.message)
        queue_frame(gen, mbuf, PAYLOAD + gen.message)


@compiled
def poll(gen, now):
    """One pass; whether there was anything to do."""
    count = call4(gen.rx, gen.port, gen.queue, gen.pkts, BURST)
    if count > 0:
        gen.frames += count
        if gen.raw != 0:
            gen.scanned_at = now
            _raw_burst(gen, count)
        else:
            frames_arrive(gen, count, now)
            _open_done(gen, now)
    if now - gen.scanned_at > gen.scan_every:
        if gen.raw != 0:
            _raw_fill(gen, now)
        else:
            scan(gen, now)
    if gen.queued > 0:
        flush(gen)
    return count > 0


@unit("generator")
def generate(generator_address, until):
    """Poll until the TSC reaches `until`. The cycles of polls that received frames are the busy ones."""
    gen = generator_at(generator_address)
    started = now = call0(gen.read_tsc)
    while now < until:
        worked = poll(gen, now)
        after = call0(gen.read_tsc)
        gen.polls += 1
        if worked:
            gen.busy_polls += 1
            gen.busy_cycles += after - now
        now = after
    gen.cycles += now - started
    return gen.requests
