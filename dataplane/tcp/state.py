"""The eleven states of RFC 9293 section 3.3.2, and the transitions of its figure 5 as a pure table."""

from enum import IntEnum


class State(IntEnum):
    """States of a connection. LISTEN lives in the listener table, SYN_RECEIVED in the backlog, TIME_WAIT in its own table."""

    CLOSED = 0
    LISTEN = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    ESTABLISHED = 4
    FIN_WAIT_1 = 5
    FIN_WAIT_2 = 6
    CLOSE_WAIT = 7
    CLOSING = 8
    LAST_ACK = 9
    TIME_WAIT = 10


CLOSED = int(State.CLOSED)
LISTEN = int(State.LISTEN)
SYN_SENT = int(State.SYN_SENT)
SYN_RECEIVED = int(State.SYN_RECEIVED)
ESTABLISHED = int(State.ESTABLISHED)
FIN_WAIT_1 = int(State.FIN_WAIT_1)
FIN_WAIT_2 = int(State.FIN_WAIT_2)
CLOSE_WAIT = int(State.CLOSE_WAIT)
CLOSING = int(State.CLOSING)
LAST_ACK = int(State.LAST_ACK)
TIME_WAIT = int(State.TIME_WAIT)

# What moves a synchronized connection: the user's CLOSE, the peer's FIN, the ACK of our FIN.
ON_CLOSE = {ESTABLISHED: FIN_WAIT_1, SYN_RECEIVED: FIN_WAIT_1, CLOSE_WAIT: LAST_ACK}
ON_FIN = {ESTABLISHED: CLOSE_WAIT, FIN_WAIT_1: CLOSING, FIN_WAIT_2: TIME_WAIT}
ON_FIN_ACKED = {FIN_WAIT_1: FIN_WAIT_2, CLOSING: TIME_WAIT, LAST_ACK: CLOSED}


def _row(moves: dict[int, int]) -> tuple[int, ...]:
    return tuple(moves.get(state, state) for state in range(len(State)))


AFTER_CLOSE, AFTER_FIN, AFTER_FIN_ACKED = _row(ON_CLOSE), _row(ON_FIN), _row(ON_FIN_ACKED)
