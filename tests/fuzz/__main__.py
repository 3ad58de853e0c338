"""`python -m fuzz --mode python|compiled --seconds N`: the search, with lines of progress; exits with 1 if something is found.

--distil keeps, in corpus/, the scripts that cover what all that were found do. `fuzz.replay` looks at one.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
FOLDER = TESTS.parent / ".fuzz"
CORPUS = Path(__file__).with_name("corpus")
SHARES = {"options": 0.1, "ip": 0.15, "icmp": 0.15, "segments": 0.3, "whole": 0.3}  # of the time, in mode python
_STATUS = re.compile(r"^#\d+\s+\w+\s")
REPORT_SECONDS = 10.0
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
STOPPED = 130  # as a shell says of what ends by Ctrl-C


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=("python", "compiled"), default="compiled")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--targets", nargs="+", choices=tuple(SHARES), default=tuple(SHARES))
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--distil", action="store_true")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    try:
        if options.distil:
            return max(distil(name) for name in options.targets)
        if options.mode == "compiled":
            return search_compiled(options.seconds, options.seed, options.targets)
        whole = sum(SHARES[name] for name in options.targets)
        for name in options.targets:
            if search_python(name, options.seconds * SHARES[name] / whole, options.seed):
                return 1
        return 0
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED


def environment(**settings: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONUNBUFFERED": "1", **settings}


def search_compiled(seconds: float, seed: int, targets: tuple[str, ...]) -> int:
    command = [sys.executable, "-m", "fuzz.compiled", str(seconds), str(FOLDER), str(seed), *targets]
    result = subprocess.run(command, env=environment(NUMBA_BOUNDSCHECK="1"), check=False)
    if -result.returncode in CRASHES:
        name, length, rest = (FOLDER / "current").read_bytes().split(b"\n", 2)
        saved = FOLDER / "findings" / f"{name.decode()}-signal{-result.returncode}"
        saved.parent.mkdir(exist_ok=True)
        saved.write_bytes(rest[: int(length)])
        print(f"FOUND: the process died of signal {-result.returncode}: {saved}")
    return result.returncode if result.returncode in (0, STOPPED) else 1


def guided(name: str, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fuzz.guided", name, *flags]
    env = environment(NUMBA_DISABLE_JIT="1")
    return subprocess.Popen(
        command, env=env, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, errors="replace"
    )


def search_python(name: str, seconds: float, seed: int) -> int:
    """Run one target for a time, showing one of libFuzzer's status lines every ten seconds, and all else that it says."""
    kept, findings = FOLDER / "python" / name, FOLDER / "findings"
    for folder in (kept, findings, CORPUS / name):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"== {name}: {seconds:.0f} s", flush=True)
    flags = [
        f"-max_total_time={max(int(seconds), 1)}",
        f"-seed={seed % (1 << 31) + 1}",
        f"-artifact_prefix={findings}/{name}-",
        *("-max_len=4096", "-rss_limit_mb=0", "-print_final_stats=1"),
        *("-timeout=3000", "-report_slow_units=3000"),  # of wall time: the process may be stopped for a while
        *map(str, (kept, CORPUS / name)),
    ]
    child = guided(name, *flags)
    started, shown = time.monotonic(), 0.0
    try:
        assert child.stdout is not None
        for line in child.stdout:
            now = time.monotonic()
            if not _STATUS.match(line):
                print(line, end="", flush=True)
            elif now - shown >= REPORT_SECONDS or "DONE" in line:
                shown = now
                print(f"{name} {now - started:6.0f} s  {line}", end="", flush=True)
        return int(child.wait() != 0)
    finally:
        child.terminate()
        child.wait()


def distil(name: str) -> int:
    """Keep in corpus/NAME the fewest scripts that cover what all that were found do."""
    new = FOLDER / "distilled" / name
    new.mkdir(parents=True, exist_ok=True)
    for path in new.iterdir():
        path.unlink()
    sources = [CORPUS / name, FOLDER / "python" / name, FOLDER / "compiled" / name]
    child = guided(name, "-set_cover_merge=1", "-rss_limit_mb=0", str(new), *(str(s) for s in sources if s.is_dir()))
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("MERGE"):
            print(name, line, end="", flush=True)
    if child.wait():
        return 1
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    for path in (CORPUS / name).iterdir():
        path.unlink()
    for path in new.iterdir():
        (CORPUS / name / path.name[:16]).write_bytes(path.read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
