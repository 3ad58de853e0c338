"""The page a server without a root shows, so that a first `curl` has something to see."""

from mpserve.apps.http.parser import Request
from mpserve.apps.http.replies import HTML, Reply, not_found

PAGE = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>mpserve</title></head>
<body>
<h1>It works.</h1>
<p>A Python handler answered this request. It came through DPDK and a TCP stack of our own, written in Python and
compiled by numba; no kernel socket was on the server's side of it.</p>
<p>Serve files with <code>mpserve http --root DIR</code>.</p>
</body>
</html>
"""
FIELDS = b"Content-Type: " + HTML + b"\r\n"


class Hello:
    """A site of one page, at `/`."""

    def respond(self, request: Request) -> Reply:
        """The page, or 404."""
        if request.target.partition(b"?")[0] != b"/":
            return not_found()
        return Reply(200, FIELDS, len(PAGE), PAGE)
