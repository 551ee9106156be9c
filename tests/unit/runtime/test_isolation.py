from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from packager.runtime.odahu_runtime import isolation

if TYPE_CHECKING:
    from pathlib import Path

NAME = "a_package_of_two"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "__init__.py").write_text("from . import below\n")
    (tmp_path / NAME / "below.py").write_text("WHOSE = 'ours'\n")
    return tmp_path


def test_private_import_leaves_no_trace(folder: Path) -> None:
    path, finders = list(sys.path), list(sys.meta_path)
    with isolation.private(NAME, str(folder)):
        package = importlib.import_module(NAME)
    assert package.below.WHOSE == "ours"
    assert not [name for name in sys.modules if name.startswith(NAME)]
    assert (sys.path, sys.meta_path) == (path, finders)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(NAME)


def test_modules_imported_before_are_restored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, theirs)
    with isolation.private(NAME, str(folder)):
        assert importlib.import_module(NAME) is not theirs
    assert sys.modules[NAME] is theirs


def test_absent_packages_can_not_be_imported(folder: Path) -> None:
    with isolation.private(NAME, str(folder), absent=["json"]), pytest.raises(ImportError):
        importlib.import_module("json.decoder")
    assert importlib.import_module("json") is sys.modules["json"]


def test_names_with_a_common_prefix_are_not_confused(folder: Path) -> None:
    with isolation.private(NAME[:-1], str(folder)), pytest.raises(ModuleNotFoundError):
        importlib.import_module(NAME)
