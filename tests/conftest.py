"""What holds for all tests."""

import signal

# Ignored under nohup, or behind an `&` of a shell; and so would the servers that tests start ignore them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
