"""HTTP over one veth pair: this project beside nginx, asyncio and uvloop, one core each for server and client."""
