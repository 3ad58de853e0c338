"""A SYN flood over memif: what a SYN costs the core, and what is left for honest clients."""
