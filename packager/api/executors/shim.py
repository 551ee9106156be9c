"""The outer process of a local run; it also writes the log and the exit code of the run.

`python -m packager.api.executors.shim FOLDER`. It and its worker inherit a lock from the service, which lasts as
long as either of them lives; unlike a process ID, it cannot be mistaken for another process.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from packager.api.executors.run_folder import RunFolder
from packager.api.log_files import LogWriter
from packager.launcher import run_cli, supervise
from packager.system.process import HELD

_LINE_BYTES = 16384  # longer lines are split
_LOG_SECONDS = 5.0  # time limit for the rest of the log after the end of the run


def main() -> None:
    """Execute the order in the folder, and record the exit code."""
    folder = RunFolder(Path(sys.argv[1]))
    order = json.loads(folder.order.read_text(encoding="utf-8"))
    os.set_inheritable(HELD, False)  # noqa: FBT003  (positional only)
    reading, writing = os.pipe()
    log = threading.Thread(target=_write_log, args=(reading, folder.log, order["logBytes"]), daemon=True)

    def work(private_folder: str) -> None:
        os.chdir(folder.path)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.argv = ["packager", *order["args"]]
        run_cli(None, private_folder)

    def meanwhile() -> None:
        os.close(writing)
        log.start()

    code = supervise(work, order["args"], meanwhile=meanwhile)
    log.join(_LOG_SECONDS)
    folder.remove_secrets()
    folder.write_exit_code(code)


def _write_log(reading: int, folder: Path, most_bytes: int) -> None:
    with open(reading, "rb") as pipe, LogWriter(folder, most_bytes=most_bytes) as writer:
        for line in iter(lambda: pipe.readline(_LINE_BYTES), b""):
            with suppress(OSError):  # on a full disk, the packaging itself reports the error
                writer.write_line(line.decode("utf-8", "replace").rstrip())


if __name__ == "__main__":
    main()
