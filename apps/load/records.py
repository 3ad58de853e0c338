"""What the compiled clients work on: one LOAD, and a CLIENT for each slot of the stack's table of connections."""

import numpy as np

from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import record_at

GONE, OPENING, IDLE, WAITING, CLOSING = 0, 1, 2, 3, 4  # CLIENT.state
FIXED, MEMCACHED, HTTP = 0, 1, 2  # LOAD.kind: how the end of a reply is found

CLIENT = np.dtype(
    [
        (name, "i8")
        for name in (
            "state handle "
            "started "  # when the requests that wait were to begin, by the TSC
            "waiting "  # requests without a whole reply
            "left "  # requests that this connection is still to make; no matter where LOAD.transactions is 0
            "need "  # bytes of the reply that are missing; IN_HEAD while an HTTP reply's head is read
            "column matched length "  # of the head's line: how far it is, how much of CONTENT_LENGTH it matches, the number behind
            "is_first_line "
        ).split()
    ]
)
LOAD = np.dtype(
    [
        (name, "i8")
        for name in (
            "core clients "
            # what is asked (`plan`): where, how often, what, and what comes back
            "server port connections most_opening pipeline transactions closes_first "
            "request request_bytes kind reply_bytes "
            "key_at key_digits keys random "  # where in the request the key's number stands; 0 keys: nowhere
            # open loop: the next request is due at due_from + due_count * interval; interval 0: closed loop
            "due_from due_count "
            "idle idle_head idle_count idle_rows "  # slots of connections that have nothing to do, the longest idle first
            "live opening "
            "histogram ns_scale "
            # what came of it
            "requests opened failures refused turns busy_turns busy_cycles cycles "
        ).split()
    ]
    + [("interval", "f8")]
)
COUNTS = ("requests", "opened", "failures", "refused", "turns", "busy_turns", "busy_cycles", "cycles")
IN_HEAD = -1

load_at, client_record_at = record_at(LOAD), record_at(CLIENT)
_CLIENT_BYTES = CLIENT.itemsize


@compiled
def client_at(load, slot):
    return client_record_at(load.clients + slot * _CLIENT_BYTES)
