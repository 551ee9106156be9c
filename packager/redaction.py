"""The one point where secrets are taken out of text that leaves the program."""

from __future__ import annotations

import base64
import json
import logging
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "*****"
_SHORTEST = 4  # a shorter secret would mask ordinary words; it's still never written by us


class Redactor(logging.Filter):
    """Replaces every known secret, in the forms in which tools print it, by `*****`.

    As a logging filter it cleans the finished message and the traceback of a record.
    """

    def __init__(self) -> None:
        """Start knowing no secret."""
        super().__init__()
        self._forms: list[str] = []
        self._lock = threading.Lock()  # logins are renewed in a thread

    def add(self, secrets: Iterable[str]) -> None:
        """Learn secrets, with their base64, URL-quoted and JSON-escaped forms."""
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= _SHORTEST:
                encoded = base64.b64encode(secret.encode()).decode()
                forms |= {secret, encoded, encoded.rstrip("="), quote(secret, safe=""), json.dumps(secret)[1:-1]}
        with self._lock:
            self._forms = sorted(
                forms.union(self._forms), key=len, reverse=True
            )  # the longest first: one may hold another

    def clean(self, text: str) -> str:
        """Return the text without the secrets."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean a log record; keeps it always."""
        record.msg, record.args = self.clean(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.clean(record.exc_text)
        return True
