"""Where an HTTP reply ends: its head is read byte by byte, as it comes, for the length of its body (RFC 9112, section 6)."""

import numpy as np

from mpserve.apps.load.records import IN_HEAD
from mpserve.dataplane.jit import compiled
from mpserve.dataplane.memory import load8

NO_LENGTH, NO_SUCCESS = -1, -2
_NAME = np.frombuffer(b"content-length:", np.uint8)
_CODE_AT = len("HTTP/1.1 ")


@compiled
def begin_head(client):
    client.column = client.matched = 0
    client.length = NO_LENGTH
    client.is_first_line = 1


@compiled
def read_head(client, at, end):
    """Read on; where the body begins, with client.need 0, or `end`, while the head goes on."""
    while at < end:
        byte = load8(at)
        at += 1
        if byte == 10:  # line feed
            if client.column == 0:
                client.need = 0
                return at
            client.column = client.matched = client.is_first_line = 0
        elif byte != 13:
            _in_line(client, byte)
            client.column += 1
    client.need = IN_HEAD
    return at


@compiled
def _in_line(client, byte):
    if client.is_first_line != 0:
        if client.column == _CODE_AT and byte != 50:  # 2xx
            client.length = NO_SUCCESS
    elif client.matched == len(_NAME):
        if 48 <= byte <= 57 and client.length != NO_SUCCESS:
            client.length = min(max(client.length, 0) * 10 + byte - 48, 1 << 40)
    elif client.column == client.matched and byte | 32 == _NAME[client.matched]:
        client.matched += 1


@compiled
def body_length(client):
    """Once the head is read: the body's length, NO_LENGTH or NO_SUCCESS."""
    return client.length
