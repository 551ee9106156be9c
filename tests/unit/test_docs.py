from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
REFERENCE = PROJECT / "docs" / "reference"
# MkDocs checks the links within docs/.
_PAGES = (
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "examples/wine/README.md",
    "packager/runtime/README.md",
    "tests/README.md",
)
_PATH = re.compile(r"`((?:bench|examples|kaniko|labextension|local|manifests|packager|tests)/[\w./-]+)`")
_LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)")


def test_generated_reference_pages_are_current() -> None:
    from local.reference import pages  # noqa: PLC0415  (it imports the whole program)

    current = pages()
    assert {name: (REFERENCE / name).read_text(encoding="utf-8") for name in current} == current, "run `make reference`"


@pytest.mark.parametrize("name", _PAGES)
def test_link_outside_of_the_documentation_names_a_file(name: str) -> None:
    page = PROJECT / name
    missing = [link for link in _LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()]
    assert not missing


def test_path_in_the_documentation_exists() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")]
    paths = {path for page in pages for path in _PATH.findall(page.read_text(encoding="utf-8"))}
    assert "packager/environment/server.txt" in paths
    assert not [path for path in paths if not (PROJECT / path).exists()]
