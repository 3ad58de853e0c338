"""Errors that handlers meet."""


class Closed(Exception):
    """The socket was used after it was closed, shut down or lost."""
