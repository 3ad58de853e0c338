"""Bytes on the wire to numbers and back, one module a protocol; no state lives here."""
