"""asyncio on our poll loop: the event loop, its transports and servers, and handlers with `async def handle`.

`mpserve.asyncio` has the public names.
"""
