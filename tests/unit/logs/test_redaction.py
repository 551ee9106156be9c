from __future__ import annotations

import base64
import logging

import pytest

from packager.logs.redaction import MASK, Redactor, secrets_of_url

SECRET = 'p@ss"word/\\é'


@pytest.mark.parametrize(
    "text",
    [SECRET, base64.b64encode(SECRET.encode()).decode(), "p%40ss%22word%2F%5C%C3%A9", 'p@ss\\"word/\\\\\\u00e9'],
)
def test_secret_is_masked_in_every_form_that_tools_print(text: str) -> None:
    redactor = Redactor()
    redactor.add([SECRET])
    assert redactor.clean(f"a {text} b") == "a ***** b"


@pytest.mark.parametrize("user", ["", "u", "us", "use", "user"])
@pytest.mark.parametrize("secret", ["swordfish99", "swordfish999", "swordfish9999"])
def test_secret_is_masked_in_base64_at_every_alignment(user: str, secret: str) -> None:
    redactor = Redactor()
    redactor.add([secret])
    text = base64.b64encode(f"{user}:{secret}".encode()).decode()
    assert MASK in redactor.clean(text)
    assert len(redactor.clean(text).replace(MASK, "").rstrip("=")) <= len(user) * 4 / 3 + 4


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("https://index/simple", []),
        ("https://u:p%40ss@index/simple", ["p%40ss", "p@ss", base64.b64encode(b"u:p@ss").decode()]),
        ("https://tok3n@index/simple", ["tok3n", "tok3n"]),
        ("https://host/t/tok3n/channel", ["tok3n"]),
    ],
)
def test_secrets_of_a_url(url: str, secrets: list[str]) -> None:
    assert secrets_of_url(url) == secrets


def test_longer_of_two_secrets_is_masked_completely() -> None:
    redactor = Redactor()
    redactor.add(["pass", "password"])
    assert redactor.clean("password pass") == "***** *****"


def test_empty_and_tiny_secrets_mask_nothing() -> None:
    redactor = Redactor()
    redactor.add(["", "a"])
    assert redactor.clean("a banana") == "a banana"


def test_log_record_is_redacted_with_arguments_and_traceback() -> None:
    redactor = Redactor()
    redactor.add(["hunter2"])
    try:
        raise ValueError("hunter2")  # noqa: TRY301
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("packager", logging.INFO, "file", 1, "login %s", ("hunter2",), info)
    assert redactor.filter(record)
    assert "hunter2" not in logging.Formatter().format(record)
    assert record.getMessage() == "login *****"


def test_secret_that_is_not_utf8_is_masked() -> None:
    redactor = Redactor()
    redactor.add(["p\udcffssword"])
    assert redactor.clean("it is p\udcffssword") == f"it is {MASK}"
