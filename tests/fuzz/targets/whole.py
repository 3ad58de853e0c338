"""Everything at once, in pools so small that they run out."""

from fuzz import steps
from fuzz.world import World

STEPS = (
    steps.near_segment,
    steps.open_passively,
    steps.command,
    steps.wait,
    steps.open_actively,
    steps.accept,
    steps.honest,
    steps.blind_segment,
    steps.icmp_error,
    steps.fragments,
    steps.fragment,
    steps.raw,
    steps.echo,
    steps.arp,
    steps.neighbours_answer,
    steps.starve,
    steps.syn_with_options,
    steps.report_loss,
    steps.close_in_order,
    steps.stop_listening,
)


def make() -> World:
    return World(
        STEPS,
        is_roomy=False,
        max_connections=4,
        syn_backlog=2,
        accept_queue=2,
        time_wait=2,
        neighbors=4,
        blocks=24,
        event_batch=3,
        rcvbuf_bytes=8192,
        sndbuf_bytes=4096,
        retries=2,
        syn_ack_retries=1,
        fin_wait_seconds=5.0,
        mbufs=160,
    )
