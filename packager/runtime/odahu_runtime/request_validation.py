"""What a service takes: how many rows, and which."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .inputs import InputError
from .model import ModelError
from .schema_validation import Checks

if TYPE_CHECKING:
    from typing import Callable, Sequence

    from .inputs import Batch
    from .limits import Limits
    from .model import Model
    from .schema import Column

TOO_MANY_ROWS = "There are more than {} rows, the most that this service takes at once; send them in parts"


class Intake(NamedTuple):
    """The limits of a service and the columns of its model, as far as it tells them."""

    limits: Limits
    columns: Sequence[Column]
    checks: Checks

    @classmethod
    def of_model(cls, model: Model, limits: Limits, log_error: Callable[[str], None]) -> Intake:
        """Ask the model for its columns; one whose `info()` fails is served all the same, unchecked."""
        columns: Sequence[Column] = ()
        try:
            columns = model.columns()[0]
        except ModelError as error:
            log_error(f"The input is not checked: {error.details}")
        return cls(limits, columns, Checks(columns, objects=model.mode == "objects", refuse=limits.check_input))

    def take(self, batch: Batch) -> Batch:
        """The rows as the model takes them.

        Raises:
            InputError: They are too many, or don't suit the model.
        """
        self.check_count(len(batch.data))
        return self.checks.apply(batch)

    def check_count(self, rows: int) -> None:
        """Refuse more rows than are taken at once.

        Raises:
            InputError: There are more.
        """
        if rows > self.limits.max_rows:
            raise InputError(TOO_MANY_ROWS.format(self.limits.max_rows), 413)
