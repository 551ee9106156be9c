"""The limits of requests, which an image or a deployment sets in the environment, and the validation of their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .inputs import InputError
from .model import ModelError
from .schema_validation import SchemaValidator

if TYPE_CHECKING:
    from typing import Callable, Mapping, Sequence

    from .inputs import Batch
    from .model import Model
    from .schema import Column

MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_ROWS = 1_000_000
_DIGITS = 18
_SHOWN = 100  # characters of a wrong value
_ANSWERS = {"true": True, "1": True, "false": False, "0": False}
TOO_MANY_ROWS = "There are more than {} rows, the limit of this service; send them in several requests"


class RequestLimits(NamedTuple):
    """The maximum body size in bytes, also unpacked; the maximum of rows; whether rows are checked against `info()`."""

    max_body: int = MAX_BODY_BYTES
    max_rows: int = MAX_ROWS
    check_input: bool = True

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> RequestLimits:
        """Read `ODAHU_MAX_BODY_BYTES`, `ODAHU_MAX_ROWS` and `ODAHU_CHECK_INPUT`; an empty value means the default.

        Raises:
            ValueError: One of them is invalid.
        """
        text = environ.get("ODAHU_CHECK_INPUT") or "true"
        check = _ANSWERS.get(text.lower())
        if check is None:
            raise ValueError(f"ODAHU_CHECK_INPUT must be true or false, not {text!r}")
        return cls(max_body_bytes(environ), _number(environ, "ODAHU_MAX_ROWS", "rows", MAX_ROWS), check)


class RequestValidator(NamedTuple):
    """The limits of a service and the columns of its model, if `info()` describes them."""

    limits: RequestLimits
    columns: Sequence[Column]
    schema_validator: SchemaValidator

    @classmethod
    def of_model(cls, model: Model, limits: RequestLimits, log_error: Callable[[str], None]) -> RequestValidator:
        """Ask the model for its columns; without them, or where `info()` fails, rows are not checked."""
        columns: Sequence[Column] = ()
        try:
            columns = model.columns()[0]
        except ModelError as error:
            log_error(f"The input is not checked: {error.details}")
        return cls(
            limits, columns, SchemaValidator(columns, objects=model.mode == "objects", reject=limits.check_input)
        )

    def validate(self, batch: Batch) -> Batch:
        """Return the rows as the model takes them.

        Raises:
            InputError: There are too many, or they don't match the model's columns.
        """
        self.check_row_count(len(batch.data))
        return self.schema_validator.apply(batch)

    def check_row_count(self, rows: int) -> None:
        """Check the number of rows.

        Raises:
            InputError: There are too many.
        """
        if rows > self.limits.max_rows:
            raise InputError(TOO_MANY_ROWS.format(self.limits.max_rows), 413)


def max_body_bytes(environ: Mapping[str, str]) -> int:
    """Return the maximum size of a body in bytes.

    Raises:
        ValueError: `ODAHU_MAX_BODY_BYTES` is not a number of bytes.
    """
    return _number(environ, "ODAHU_MAX_BODY_BYTES", "bytes", MAX_BODY_BYTES)


def _number(environ: Mapping[str, str], name: str, unit: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdecimal()) or len(text) > _DIGITS or int(text) < 1:
        raise ValueError(f"{name} must be a number of {unit}, not {text[:_SHOWN]!r}")
    return int(text)
