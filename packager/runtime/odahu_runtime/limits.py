"""How much a request may hold, and whether it is checked: what an image or a deployment sets in the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Mapping

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_ROWS = 1_000_000
_DIGITS = 18
_SHOWN = 100  # characters of a wrong value
_ANSWERS = {"true": True, "1": True, "false": False, "0": False}


class Limits(NamedTuple):
    """The largest body in bytes, also unpacked; the most rows; whether rows are checked against `info()`."""

    max_body: int = MAX_BODY_BYTES
    max_rows: int = MAX_ROWS
    check_input: bool = True

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Limits:
        """Read `ODAHU_MAX_BODY_BYTES`, `ODAHU_MAX_ROWS` and `ODAHU_CHECK_INPUT`; empty is not set.

        Raises:
            ValueError: One of them is not what it has to be.
        """
        text = environ.get("ODAHU_CHECK_INPUT") or "true"
        check = _ANSWERS.get(text.lower())
        if check is None:
            raise ValueError(f"ODAHU_CHECK_INPUT must be true or false, not {text!r}")
        return cls(max_body_bytes(environ), _number(environ, "ODAHU_MAX_ROWS", "rows", MAX_ROWS), check)


def max_body_bytes(environ: Mapping[str, str]) -> int:
    """The largest body that is read, in bytes.

    Raises:
        ValueError: `ODAHU_MAX_BODY_BYTES` is not a number of bytes.
    """
    return _number(environ, "ODAHU_MAX_BODY_BYTES", "bytes", MAX_BODY_BYTES)


def _number(environ: Mapping[str, str], name: str, unit: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS or int(text) < 1:
        raise ValueError(f"{name} must be a number of {unit}, not {text[:_SHOWN]!r}")
    return int(text)
