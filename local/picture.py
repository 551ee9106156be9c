"""Run commands and draw what they print as an SVG: how docs/run.svg was made.

python local/picture.py docs/run.svg 'packager build ...' 'curl ...'

Times, and lines which only say that a stage begins, are left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

COLUMNS = 104
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ", re.MULTILINE)
_BEGINNING = re.compile(r"^.*\.\.\.\n", re.MULTILINE)
# Rich's own format loads its font from another site.
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code", "Menlo")
_FORMAT = _FORMAT.replace(" with Rich https://www.textualize.io", "")


def main() -> None:
    """Run the commands in this folder and environment, and draw what they print."""
    target, *commands = sys.argv[1:]
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, highlight=False)
    for command in commands:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        done = subprocess.run(
            ["bash", "-c", command], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        console.print(Text.from_ansi(_BEGINNING.sub("", _TIME.sub("", done.stdout)).rstrip()))
        console.print()
    svg = console.export_svg(title="packager", theme=DIMMED_MONOKAI, code_format=_FORMAT, unique_id="run")
    Path(target).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
