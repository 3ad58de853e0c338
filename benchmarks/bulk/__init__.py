"""Streams over a faulty wire: this project's TCP beside the kernel's, each way, on the same wire."""
