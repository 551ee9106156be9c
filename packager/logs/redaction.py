"""Removes secrets from all text that leaves the program."""

from __future__ import annotations

import base64
import json
import logging
import re
import shlex
import threading
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "*****"
_SHORTEST = 4  # a shorter secret would mask ordinary words
_SHORTEST_CORE = 8  # the same for a part of base64 text
_PATH_TOKEN = re.compile(r"/t/([^/]+)")  # conda's


def forms_of(secret: str) -> set[str]:
    """Return a secret in the forms in which tools write it: plain, base64, and quoted for URLs, JSON and shells.

    Its base64 form depends on the text before it, as in `user:password`. All three alignments are included, without the
    characters at both ends that encode neighbouring text, too.
    """
    data = secret.encode(errors="surrogateescape")  # environment variables need not be UTF-8 (PEP 383)
    forms = {secret, quote(data), quote(data, safe=""), quote_plus(data), shlex.quote(secret)}
    forms |= {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(data).decode()
        cores = {
            encode(bytes(before) + data).decode()[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
            for before in range(3)
        }
        forms |= {encoded, encoded.rstrip("="), *(core for core in cores if len(core) >= _SHORTEST_CORE)}
    return forms


def secrets_of_url(url: str) -> list[str]:
    """Return the secrets in a URL: the password (a user without one is a token), and conda's token in the path."""
    parts = urlsplit(url)
    user, password = parts.username or "", parts.password or ""
    pair = f"{unquote(user)}:{unquote(password)}" if password else ""
    sent = base64.b64encode(pair.encode(errors="surrogateescape")).decode()
    tokens = _PATH_TOKEN.findall(parts.path)
    found = [password or user, unquote(password or user), sent, *tokens]
    return [secret for secret in found if secret]


class Redactor(logging.Filter):
    """Replaces every registered secret, in the forms in which tools write it, with `*****`.

    As a logging filter it redacts the message and the traceback of a record.
    """

    def __init__(self) -> None:
        """Start without secrets."""
        super().__init__()
        self._forms: list[str] = []
        self._lock = threading.Lock()  # credentials are refreshed in a thread

    def add(self, secrets: Iterable[str]) -> None:
        """Register secrets with their base64, URL-quoted and JSON-escaped forms."""
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= _SHORTEST:
                forms |= forms_of(secret)
        with self._lock:
            # The longest first: one may contain another.
            self._forms = sorted(forms.union(self._forms), key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return the text with secrets redacted."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a log record; always return True, to keep it."""
        record.msg, record.args = self.clean(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.clean(record.exc_text)
        return True
