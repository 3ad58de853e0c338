"""Fixtures of the framework's tests."""

import sys
from pathlib import Path

if str(Path(__file__).parent) not in sys.path:
    sys.path.append(str(Path(__file__).parent))  # for `import channel_fixtures`, beside the tests

from channel_fixtures import make_world, world  # noqa: E402, F401
