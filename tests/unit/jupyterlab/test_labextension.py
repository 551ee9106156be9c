from __future__ import annotations

import hashlib
import json
from pathlib import Path

import packager
from packager import jupyterlab

PROJECT = Path(__file__).parents[3]
SOURCES = PROJECT / "labextension"
BUILT = PROJECT / "packager" / "jupyterlab" / "labextension"


def test_bundle_was_built_from_these_sources() -> None:
    """`make labextension` writes both; a source that changed since, or a bundle that was edited, is found here."""
    lines = [line.split() for line in (SOURCES / "built.sha256").read_text().splitlines()]
    files = [*(SOURCES / "src").iterdir(), *(SOURCES / "style").iterdir(), *BUILT.rglob("*")]
    files += [SOURCES / name for name in ("package.json", "package-lock.json", "tsconfig.json", "webpack.config.js")]
    now = {
        file.relative_to(SOURCES.parent).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.is_file()
    }
    then = {(SOURCES / name).resolve().relative_to(PROJECT).as_posix(): sum_ for sum_, name in lines}
    assert now == then, "run `make labextension`"


def test_names_and_versions_agree() -> None:
    package = json.loads((SOURCES / "package.json").read_text())
    assert (package["name"], package["version"]) == (jupyterlab.NAME, packager.__version__)
    assert (BUILT / json.loads((BUILT / "package.json").read_text())["jupyterlab"]["_build"]["load"]).is_file()
    licences = json.loads((BUILT / "static" / "third-party-licenses.json").read_text())["packages"]
    assert {package["name"] for package in licences} == {"css-loader", "style-loader"}
    assert all(package["extractedText"] for package in licences)
