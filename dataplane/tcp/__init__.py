"""TCP by noun (RFC 9293): sequence numbers, state, arrival, checks, transmission, timers, congestion, reassembly."""
