"""A program with a supervisor over stub workers: `python stub_server.py ACT [NAME=VALUE...]`."""

import sys
from pathlib import Path

import mpserve
from mpserve.framework import server, supervisor


class Stub(mpserve.Handler):
    act: str = ""


if __name__ == "__main__":
    server.Server.program = (str(Path(__file__).with_name("stub_worker.py")),)
    supervisor.QUICK_SECONDS = float(dict(word.split("=") for word in sys.argv[2:]).get("quick", "2"))
    settings = {"device": "ring", "grace_seconds": 1.0}
    mpserve.run(Stub, options={"act": sys.argv[1]}, **settings)
