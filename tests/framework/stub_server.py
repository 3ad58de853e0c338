"""A program with a supervisor over stub workers: `python stub_server.py ACT [quick=SECONDS] [cores=LIST]`."""

import dataclasses
import sys
from pathlib import Path

import mpserve
from mpserve.dataplane.device import DRIVERS
from mpserve.framework import server, supervisor


class Stub(mpserve.Handler):
    act: str = ""


if __name__ == "__main__":
    server.Server.program = (str(Path(__file__).with_name("stub_worker.py")),)
    words = dict(word.split("=") for word in sys.argv[2:])
    supervisor.QUICK_SECONDS = float(words.get("quick", "2"))
    DRIVERS["ring"] = dataclasses.replace(DRIVERS["ring"], several="each")  # nothing is opened
    settings = {"device": "ring", "grace_seconds": 1.0, "cores": words.get("cores")}
    mpserve.run(Stub, options={"act": sys.argv[1]}, **settings)
