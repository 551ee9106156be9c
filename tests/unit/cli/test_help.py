"""The help of every command at 80 columns, in tests/golden/help.txt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer.main
from typer.testing import CliRunner

from packager.cli import app
from tests.golden_files import check_golden

if TYPE_CHECKING:
    from collections.abc import Iterator


def visible_commands(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in sorted(getattr(group, "commands", {}).items()):
        if not command.hidden:
            yield from visible_commands(command, (*path, name))


def test_help_of_every_command_matches_the_golden_file() -> None:
    pages = []
    for words in visible_commands(typer.main.get_command(app)):
        shown = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*words, "--help"], prog_name="packager")
        assert shown.exit_code == 0, words
        pages.append(f"$ {' '.join(('packager', *words, '--help'))}\n{shown.output.rstrip()}\n")
    check_golden("help.txt", "\n".join(pages))
