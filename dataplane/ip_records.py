"""The records of IP's own tables: routes, and datagrams that come in fragments. Addresses are 16 bytes, v4-mapped, as in a KEY."""

import numpy as np

ROUTES = 18  # 16 static ones, our own link and the default
DATAGRAMS = 32  # that may be incomplete at a time
FRAGMENTS = 128  # of one datagram: 64 KiB in frames of 576 bytes
HEADER_ROOM = 60  # the longest IPv4 header stands before the payload
MAX_DATAGRAM = 65_535
DATAGRAM_BYTES = 66 * 1024  # HEADER_ROOM and the longest payload, rounded up

ROUTE = np.dtype(  # the longest prefix stands first
    [
        ("network_high", "i8"),
        ("network", "i8"),
        ("mask_high", "i8"),
        ("mask", "i8"),  # of the 32 bits of an IPv4 address
        ("gateway_high", "i8"),
        ("gateway", "i8"),  # 0: on the link
    ]
)
DATAGRAM = np.dtype(  # one that is being put together; its bytes lie in `datagram_data`
    [
        ("remote_high", "i8"),
        ("remote", "i8"),
        ("started_at", "i8"),  # 0: not in use
        ("identification", "i4"),
        ("protocol", "i4"),
        ("header", "i4"),  # length of the first fragment's header; 0: it has not come
        ("length", "i4"),  # of the payload; -1: the last fragment has not come
        ("received", "i4"),  # bytes of the payload
        ("end", "i4"),  # of the fragment that ends last
        ("count", "i4"),
        ("refused", "i4"),  # 1: what still comes of it is dropped
    ],
    align=True,
)
FRAGMENT = np.dtype([("start", "i4"), ("end", "i4")], align=True)
