"""The only place that starts processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Completed:
    """A process that has ended.

    Attributes:
        returncode: Its exit code; negative for the signal that killed it.
        output: The last lines of its output and errors together, in order, at most 200 lines.
        stdout: Its whole standard output when `capture` asked for it (then it's not in `output`), else empty.
    """

    argv: tuple[str, ...]
    returncode: int
    output: str
    stdout: str = ""


class Runner(Protocol):
    """How a command is run; tests give one that starts nothing."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        on_line: Callable[[str], None] | None = None,
        capture: bool = False,
    ) -> Completed:
        """Run `argv` with exactly the environment `env` and wait for it."""
