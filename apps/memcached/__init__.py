"""memcached's text protocol, as a plain Python handler."""

from mpserve.apps.memcached.handler import Memcached

__all__ = ["Memcached"]
