"""Imports that leave no trace, so that the model and the runtime never get each other's packages.

The runtime's packages are never on `sys.path`. A finder that exists only while they are imported finds them, and their
entries leave `sys.modules` before the model is imported. References between the modules keep them alive.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import sys
from contextlib import contextmanager
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any, Iterator, List, Optional, Sequence

_kept: List[Any] = []  # keeps modules without a name alive: orjson crashes with SIGSEGV after its module is freed


class _Finder:
    """Finds one top-level package and its submodules in one folder only."""

    def __init__(self, package: str, folder: str) -> None:
        self.package = package
        self.folder = folder

    def find_spec(self, name: str, path: Optional[Sequence[str]] = None, _target: Any = None) -> Optional[ModuleSpec]:
        if not _belongs(name, self.package):
            return None
        return PathFinder.find_spec(name, [self.folder] if path is None else path)


@contextmanager
def private(package: str, folder: str, absent: Sequence[str] = ()) -> Iterator[None]:
    """Import `package` from `folder` within the block, in which the packages in `absent` can't be imported.

    All modules of the package have to be imported within the block: afterwards its name is free again, or refers to the
    same package as before.
    """
    names = (package, *absent)
    before = {name: module for name, module in sys.modules.items() if any(_belongs(name, root) for root in names)}
    for name in before:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None marks a module as absent
    finder: Any = _Finder(package, folder)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        ours = [name for name in sys.modules if any(_belongs(name, root) for root in names)]
        _kept.extend(module for module in map(sys.modules.pop, ours) if module is not None)
        sys.modules.update(before)


def _belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def load_granian(vendor: str) -> Optional[Any]:
    """Load granian's Rust core for this Python from `vendor`; without one return None, and gunicorn serves alone.

    Granian's Python files are not used (granian_worker.py tells why).

    Raises:
        ImportError: It exists, and this machine can't load it.
    """
    return _load(vendor, "granian", "_granian")


def load_orjson(vendor: str) -> Optional[Any]:
    """Load orjson; without one return None, and the standard library reads and writes JSON.

    Raises:
        ImportError: It exists, and this machine can't load it.
    """
    return _load(vendor, "orjson", "orjson")


def _load(vendor: str, package: str, module: str) -> Optional[Any]:
    for path in sorted(glob.glob(os.path.join(glob.escape(vendor), package, f"{module}.*"))):
        if path.endswith(tuple(EXTENSION_SUFFIXES)):
            spec = importlib.util.spec_from_file_location(f"{package}.{module}", path)
            assert spec is not None  # noqa: S101  (it has the suffix of an extension)
            assert spec.loader is not None  # noqa: S101
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
            _kept.append(loaded)
            return loaded
    return None
