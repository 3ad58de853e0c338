"""A load generator that is a compiled client on this stack: `mpserve bench` runs it, against our servers and others."""
