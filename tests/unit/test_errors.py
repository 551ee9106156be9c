from __future__ import annotations

import re

from packager import errors
from packager.errors import Interrupted, PackagerError, exit_codes

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PackagerError)]


def test_tree_in_the_docstring_matches_the_classes() -> None:
    drawn = dict(re.findall(r"(\w+) +(\d+)  ", errors.__doc__ or ""))
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in KINDS}


def test_every_class_has_a_unique_exit_code_and_code() -> None:
    assert len({kind.exit_code for kind in KINDS}) == len(KINDS) == len({kind.code for kind in KINDS})
    assert set(exit_codes()) == {0, 130, 137, 141, 143, *(kind.exit_code for kind in KINDS)}


def test_interruption_exits_with_128_plus_the_signal() -> None:
    errors_shown = [Interrupted(number).as_error() for number in (2, 15)]
    assert [(error.exit_code, error.code) for error in errors_shown] == [(130, "interrupted"), (143, "interrupted")]
    assert "SIGTERM" in errors_shown[1].message


def test_interruption_is_not_an_exception_subclass() -> None:
    assert not issubclass(Interrupted, Exception)


def test_rewritten_error_keeps_its_code() -> None:
    error = errors.SolveError("a secret", hint="the secret").rewritten(lambda text: text.replace("secret", "*"))
    assert isinstance(error, PackagerError)
    assert (error.message, error.hint, error.exit_code, error.code) == ("a *", "the *", 21, "solve")
