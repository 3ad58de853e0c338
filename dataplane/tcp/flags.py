"""What is owed, wanted and known of a connection: the bits of TCB.flags."""

ACK_NOW = 1 << 0  # an ACK must leave in this turn
ACK_DELAYED = 1 << 1  # an ACK may wait for data to go with it (RFC 9293 section 3.8.6.3)
IN_OUTPUTS = 1 << 2  # listed for egress
IN_NOTIFY = 1 << 3  # listed for events
FIN_QUEUED = 1 << 4  # the user has closed: a FIN follows the send buffer
FIN_SENT = 1 << 5
FIN_RECEIVED = 1 << 6
READING = 1 << 7  # the channel takes data as it comes
READ_ONCE = 1 << 8  # ... one completion only, then it must ask again
WANT_WRITABLE = 1 << 9  # tell when the send buffer has room again
RETRANSMIT = 1 << 10  # a lost segment must be sent again, whatever the congestion window
IN_RECOVERY = 1 << 11  # fast recovery, RFC 6582
USER_CLOSED = 1 << 12  # the handle is closed: what still arrives is dropped
UNACCEPTED = 1 << 13  # waits in the listener's accept queue
PROBE = 1 << 14  # a zero-window probe is owed
NOTIFY_EOF = 1 << 15
NOTIFY_TIMEOUT = 1 << 16
NOTIFY_CLOSED = 1 << 17
GONE = 1 << 18  # the CLOSED event has been given: the slot is on its way back
IN_DELAYED = 1 << 19  # listed for a delayed ACK
EOF_GIVEN = 1 << 20  # the EOF event has been given
ACK_PUT_OFF = 1 << 21  # the delayed ACK has its deadline
TIMESTAMPS = 1 << 22  # both sides have offered timestamps (RFC 7323)
SACK = 1 << 23  # both sides have offered selective acknowledgments (RFC 2018)
TAIL_PROBE = 1 << 24  # a tail loss probe is owed (RFC 8985 section 7)
TAIL_PROBED = 1 << 25  # ... has left, and its answer is awaited
REORDERED = 1 << 26  # the path has shown that it reorders
CONNECTING = 1 << 27  # the channel awaits its CONNECT event
NOTIFY_CONNECT = 1 << 28  # ... which found no room in the batch
FIN_KEPT = 1 << 29  # the peer's FIN has come, behind a gap

LISTED = IN_OUTPUTS | IN_NOTIFY | IN_DELAYED  # outlive the connection: the slot's place in a list does
