"""A worker process without a stack: the supervisor's protocol with nothing behind it.

What it does is the handler's option `act`, with `@INDEX` behind it what one of several workers does.
"""

import os
import signal
import sys
import time
from typing import Any

from mpserve.dataplane.errors import SetupError
from mpserve.framework import process
from mpserve.framework.group import PID, Group


def compile_units(control: process.Control) -> None:
    open(os.environ["STUB_CACHE"], "w").close()
    for done, name in enumerate(("first", "second")):
        control.say("progress", name=name, done=done, total=2)
        time.sleep(float(os.environ.get("STUB_COMPILE_SECONDS", "0")))


def missing_units() -> list[str]:
    path = os.environ.get("STUB_CACHE")
    return ["first", "second"] if path and not os.path.exists(path) else []


def serve(control: process.Control, order: dict[str, Any]) -> None:
    act, _, only = order["options"].get("act", "").partition("@")
    if only and order["index"] != int(only):
        act = ""
    print(f"stub worker on {order['device']}: {act}", file=sys.stderr)
    if act == "refuse" or (act == "refuse later" and os.path.getsize(order["counters"])):
        raise SetupError("the worker has no such device: plug one in")
    if act == "fail":
        raise RuntimeError("on_start went wrong")
    if act == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, drain)
    with open(order["counters"], "r+b") as counters:
        counters.write(bytes(8))
    group = Group.attach(order["group"], order["index"])
    assert (group.get(group.index, PID), group.cores) == (os.getpid(), order["cores"])
    group.counters_of(group.index)[0] += 1
    control.say("ready", device="stub", mac="02:00:00:00:00:01", mtu=1500)
    if act == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if act in ("die later", "refuse later"):
        time.sleep(0.2)
        os._exit(3)
    while True:
        time.sleep(10)


def drain(*_: object) -> None:
    print("stub worker drains", file=sys.stderr)
    sys.exit(0)


process.import_everything = missing_units
process.load_units = lambda: None
process.compile_units = compile_units
process.serve = serve
if __name__ == "__main__":
    sys.exit(process.main(sys.argv[1:]))
