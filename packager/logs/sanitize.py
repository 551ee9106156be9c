"""Makes text from outside safe to show: one short line without control or direction characters."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(r"""[\s?&,;()<>"'\[\]{}]""")


def sanitize(text: object, *, limit: int = 400) -> str:
    """Return a text from outside as one line of at most `limit` characters.

    The text is cut between words, never inside one: redaction would not recognize half of a secret.
    """
    text = "" if text is None else str(text)
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    if len(line) <= limit:
        return line
    cut = max((found.start() for found in _BOUNDARY.finditer(line[: limit - 1])), default=0)
    return f"{line[:cut].rstrip()} …".lstrip()
