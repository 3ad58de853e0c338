"""`mpserve bench`: this server and others under the same load, on this machine."""

from mpserve.cli.bench.commands import bench

__all__ = ["bench"]
