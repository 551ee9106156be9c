"""The first moments of a process: a stop before anything heavy is imported."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


def catches_sigterm(pid: int) -> bool:
    caught = re.search(r"^SigCgt:\s+([0-9a-f]+)$", Path("/proc", str(pid), "status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) & 1 << (signal.SIGTERM - 1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_program_is_imported_is_answered(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import time\ntime.sleep(600)\n")  # what the program imports takes as long
    words = [sys.executable, "-m", "packager", "inspect", "/dev/stdin"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(words, env=environ, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not catches_sigterm(process.pid):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err == f"packager: interrupted by {number.name} before it had begun\n"
