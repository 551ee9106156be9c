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


def cost(words: tuple[str, ...], folder: str) -> tuple[float, float]:
    """Run a command; return the whole process's milliseconds, and its processor time, children's included."""
    environ = {**os.environ, "PACKAGER_WORK_DIR": folder}
    begin = time.perf_counter()
    process = subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (time.perf_counter() - begin) * 1000, (used.ru_utime + used.ru_stime) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="rounds that count; one before them doesn't")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        rounds = [{name: cost(words, folder) for name, words in COMMANDS.items()} for _ in range(runs + 1)][1:]
    print(f"{'medians':20} {'ms':>8} {'ms more':>8} {'ratio':>8} {'CPU ms':>8} {'CPU ms more':>12} {'CPU ratio':>10}")
    for name in COMMANDS:
        row = f"{name:20}"
        for which, widths in ((0, (8, 8, 8)), (1, (8, 12, 10))):
            taken = [(each[name][which], each["empty Python"][which]) for each in rounds]
            middle = statistics.median(mine for mine, _ in taken)
            more = statistics.median(mine - empty for mine, empty in taken)
            ratio = statistics.median(mine / empty for mine, empty in taken)
            row += f" {middle:{widths[0]}.0f} {more:{widths[1]}.0f} {ratio:{widths[2]}.1f}"
        print(row)


if __name__ == "__main__":
    main()
