"""Where a switchboard has its members' rows, for who looks without the stack: the supervisor, which says that one has died."""

ROWS_AT, ROW_BYTES = 512, 128  # `switchboard` asserts that this is so
STATE_AT = 0  # in a row: int64
ABSENT, DRAINING, SERVING = 0, 1, 2  # what it says
