"""What holds for all tests."""

import signal

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and so would the servers that tests start
