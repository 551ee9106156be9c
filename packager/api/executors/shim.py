"""Keeps one `packager run`: starts it, writes its log, and notes how it ended, whatever becomes of the service.

A process of its own, `python -m packager.api.executors.shim FOLDER`. The lock that it got from the service lasts as
long as it lives, so nobody has to trust a process id.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from packager.api.executors.run_folder import RunFolder
from packager.api.log_files import LogWriter
from packager.errors import Interrupted, PackagerError
from packager.system.process import HELD, run_command
from packager.system.signals import stop_signals

log = logging.getLogger(__name__)

_GRACE = 30.0  # seconds; the packager ends its own children in PACKAGER_STOP_GRACE of them


def main() -> None:
    """Run what the folder says, and write down how it ended."""
    folder = RunFolder(Path(sys.argv[1]))
    os.set_inheritable(HELD, False)  # noqa: FBT003  (positional only)
    try:
        with stop_signals():
            code = _run(folder)
    except Interrupted as interruption:
        code = interruption.as_error().exit_code
    except PackagerError as error:
        log.warning("%s", error.message)
        code = error.exit_code
    folder.take_secrets_away()
    folder.write_exit_code(code)


def _run(folder: RunFolder) -> int:
    order = json.loads(folder.order.read_text(encoding="utf-8"))
    with LogWriter(folder.log, most_bytes=order["logBytes"]) as writer:

        def keep(line: str) -> None:
            with suppress(OSError):  # a full disk: the packaging itself says so where it matters
                writer.write_line(line)

        return run_command(order["argv"], env=os.environ, cwd=folder.path, on_line=keep, grace=_GRACE).returncode


if __name__ == "__main__":
    main()
