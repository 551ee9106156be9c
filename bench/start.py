"""What a command takes before it works: `--version`, `--help` and a build, beside an empty Python, in one run.

python bench/start.py [--runs 15]

Each round runs every command once, in turn, and the ratios are taken round by round: they keep their meaning on a
machine whose speed changes meanwhile. The build fails at its model, which isn't there: it has gone through its start,
its imports, and the outer process with its worker, and through nothing else. The last command is the same
without an outer process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

ONE_PROCESS = "from packager.launcher import run_cli; run_cli(None, None)"
PACKAGER = (sys.executable, "-m", "packager")
COMMANDS = {
    "empty Python": (sys.executable, "-c", ""),
    "--version": (*PACKAGER, "--version"),
    "--help": (*PACKAGER, "--help"),
    "build": (*PACKAGER, "build", "/nowhere/model.zip"),
    "build, one process": (sys.executable, "-c", ONE_PROCESS, "build", "/nowhere/model.zip"),
}


def seconds(words: tuple[str, ...], folder: str) -> float:
    """Run a command and return how long the whole process took."""
    environ = {**os.environ, "PACKAGER_WORK_DIR": folder}
    begin = time.perf_counter()
    subprocess.run(words, env=environ, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="rounds that count; one before them doesn't")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        rounds = [{name: seconds(words, folder) for name, words in COMMANDS.items()} for _ in range(runs + 1)][1:]
    print(f"{'':20} {'median, ms':>12} {'ms more':>10} {'times an empty Python':>22}")
    for name in COMMANDS:
        taken = [each[name] for each in rounds]
        more = statistics.median(each[name] - each["empty Python"] for each in rounds)
        ratio = statistics.median(each[name] / each["empty Python"] for each in rounds)
        print(f"{name:20} {statistics.median(taken) * 1000:12.0f} {more * 1000:10.0f} {ratio:22.1f}")


if __name__ == "__main__":
    main()
