"""Golden files: expected text in tests/golden/, written again by `UPDATE_GOLDEN=1 pytest ...`."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Compare a text with its golden file, or write the file."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"tests/golden/{name} differs; UPDATE_GOLDEN=1 writes it again"
