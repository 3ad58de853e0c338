"""`mpserve bench`: this server and others under the same load, on this machine."""

from mpserve.cli.bench import series  # noqa: F401  # adds its commands
from mpserve.cli.bench.commands import bench

__all__ = ["bench"]
