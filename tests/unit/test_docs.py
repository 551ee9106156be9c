from __future__ import annotations

from pathlib import Path

import pytest

from local import reference

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("name", "text"), reference.pages().items())
def test_generated_page_is_current(name: str, text: str) -> None:
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == text, "run `make reference`"
