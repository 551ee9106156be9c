"""Reads a tutorial as its reader would: files are written, commands are run, in the order of the page.

A fenced block with a title is a file, one of the language `sh` is a command. A comment `<!-- not run: REASON -->`
before a block leaves it out. A block with the title `output` is what the commands before it print, among other lines.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?"
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
OUTPUT = "output"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    title: str = ""
    reason: str = ""  # to leave it out


def read_blocks(page: Path) -> list[Block]:
    return [
        Block(language=found["language"], text=found["text"], title=found["title"] or "", reason=found["reason"] or "")
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def follow(page: Path, folder: Path, environ: dict[str, str], *, port: int = 5000) -> str:
    """Do what the page says in a folder, with another port than 5000; return what the commands printed."""
    printed = ""
    for block in read_blocks(page):
        if block.reason:
            continue
        if block.title == OUTPUT:
            assert block.text.strip().replace(" ", "") in printed.replace(" ", ""), (block.text, printed)
        elif block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "sh":
            script = "set -euo pipefail\n" + block.text.replace("5000", str(port))
            done = subprocess.run(
                ["bash", "-c", script],
                cwd=folder,
                env=environ,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert done.returncode == 0, f"{block.text}\n{done.stdout}"
            printed += done.stdout
    return printed
