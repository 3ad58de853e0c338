"""Small clients that are no full TCP, so that they cost less than the server: a few segments, one request at a time."""
