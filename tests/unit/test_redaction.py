from __future__ import annotations

import base64
import logging

import pytest

from packager.redaction import Redactor

SECRET = 'p@ss"word/\\é'


@pytest.mark.parametrize(
    "text",
    [SECRET, base64.b64encode(SECRET.encode()).decode(), "p%40ss%22word%2F%5C%C3%A9", 'p@ss\\"word/\\\\\\u00e9'],
)
def test_a_secret_is_masked_in_every_form_that_tools_print(text: str) -> None:
    redactor = Redactor()
    redactor.add([SECRET])
    assert redactor.clean(f"a {text} b") == "a ***** b"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    redactor = Redactor()
    redactor.add(["pass", "password"])
    assert redactor.clean("password pass") == "***** *****"


def test_empty_and_tiny_secrets_do_not_mask_everything() -> None:
    redactor = Redactor()
    redactor.add(["", "a"])
    assert redactor.clean("a banana") == "a banana"


def test_a_log_record_is_cleaned_with_its_arguments_and_traceback() -> None:
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
