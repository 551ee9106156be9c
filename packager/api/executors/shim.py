"""The outer process of a packaging that the service runs: it also writes the run's log, and how the run ended.

`python -m packager.api.executors.shim FOLDER`. The lock that it and its worker got from the service lasts as long as
either lives, so nobody has to trust a process id.
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

_LINE_BYTES = 16384  # after which a line is cut
_LOG_SECONDS = 5.0  # how long the log's rest may take when the run has ended


def main() -> None:
    """Run what the folder says, and note how it ended."""
    folder = RunFolder(Path(sys.argv[1]))
    order = json.loads(folder.order.read_text(encoding="utf-8"))
    os.set_inheritable(HELD, False)  # noqa: FBT003  (positional only)
    reading, writing = os.pipe()
    log = threading.Thread(target=_write_log, args=(reading, folder.log, order["logBytes"]), daemon=True)

    def work(private_folder: str) -> None:
        os.chdir(folder.path)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.argv = ["packager", *order["words"]]
        run_cli(None, private_folder)

    def meanwhile() -> None:
        os.close(writing)
        log.start()

    code = supervise(work, order["words"], meanwhile=meanwhile)
    log.join(_LOG_SECONDS)
    folder.take_secrets_away()
    folder.write_exit_code(code)


def _write_log(reading: int, folder: Path, most_bytes: int) -> None:
    with open(reading, "rb") as pipe, LogWriter(folder, most_bytes=most_bytes) as writer:
        for line in iter(lambda: pipe.readline(_LINE_BYTES), b""):
            with suppress(OSError):  # a full disk: the packaging reports it where it matters
                writer.write_line(line.decode("utf-8", "replace").rstrip())


if __name__ == "__main__":
    main()
