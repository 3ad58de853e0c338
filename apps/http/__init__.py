"""HTTP/1.1 for static files, as a plain Python handler; and the fixed reply that benchmarks use."""

from mpserve.apps.http.fixed import FixedReply
from mpserve.apps.http.handler import Http

__all__ = ["FixedReply", "Http"]
