"""asyncio over the stack: an event loop whose servers and connections bypass the kernel. `docs/asyncio.md` has the rules.

asyncio.Runner(loop_factory=mpserve.asyncio.new_event_loop)
uvicorn --loop mpserve.asyncio:loop_factory --host 10.9.0.2 app:app
"""

from mpserve.framework.aio.loop import Loop
from mpserve.framework.aio.policy import EventLoopPolicy, loop_factory, new_event_loop
from mpserve.framework.aio.streams import Stream

__all__ = ["EventLoopPolicy", "Loop", "Stream", "loop_factory", "new_event_loop"]
