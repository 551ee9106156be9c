from __future__ import annotations

import os
from typing import TYPE_CHECKING

from packager.runtime.odahu_runtime import log
from packager.runtime.odahu_runtime.http import Request

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_access_lines_are_written_with_the_last_one_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    monkeypatch.setattr(log, "STDERR", file)
    request = Request("POST", "/a", "1.2.3.4", lambda _: None)
    log.access(request, 200, 1, 0.001, last=False)
    assert path.read_bytes() == b""
    log.access(request, 201, 1, 0.001)
    log.access(request, 202, 1, 0.001, last=False)
    log.write("INFO", "an event")
    os.close(file)
    words = [line.split("] ", 1)[1] for line in path.read_text().splitlines()]
    assert words == [
        "ACCESS 1.2.3.4 POST /a 200 1 1.0ms",
        "ACCESS 1.2.3.4 POST /a 201 1 1.0ms",
        "ACCESS 1.2.3.4 POST /a 202 1 1.0ms",
        "INFO an event",
    ]
