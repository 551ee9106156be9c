from __future__ import annotations

import pytest

from packager.logs.sanitize import sanitize


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\n\x1b[31m  b\tc", "a [31m b c"),
        ("user\u202egnp.exe", "user gnp.exe"),
        (None, ""),
        (404, "404"),
        ("word " * 3, "word word word"),
    ],
)
def test_text_becomes_one_line_without_control_or_direction_characters(text: object, shown: str) -> None:
    assert sanitize(text) == shown


def test_long_text_is_cut_at_its_limit() -> None:
    assert len(sanitize("word " * 1000)) <= 400
    assert sanitize("word " * 1000, limit=12) == "word word …"
    assert sanitize("https://host/path?token=" + "x" * 500) == "https://host/path …"


@pytest.mark.parametrize("before", range(375, 400))
def test_secret_at_the_cut_is_left_out_whole(before: int) -> None:
    assert "swordfish" not in sanitize("." * (before - 1) + " swordfish-swordfish-swordfish")
