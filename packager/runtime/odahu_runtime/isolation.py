"""Imports that leave no trace, so that the model and the runtime can't get at each other's packages.

Our packages never lie on `sys.path`. They are found by a finder that is there only while they are imported, and their
entries leave `sys.modules` before the model is imported. The modules live on, held by what refers to them.
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

_kept: List[Any] = []  # our modules, which no name holds: orjson without its module ends the process with a SIGSEGV


class _Finder:
    """Finds one top-level package, and what is below it, in one folder and nowhere else."""

    def __init__(self, package: str, folder: str) -> None:
        self.package = package
        self.folder = folder

    def find_spec(self, name: str, path: Optional[Sequence[str]] = None, _target: Any = None) -> Optional[ModuleSpec]:
        if not _belongs(name, self.package):
            return None
        return PathFinder.find_spec(name, [self.folder] if path is None else path)


@contextmanager
def private(package: str, folder: str, absent: Sequence[str] = ()) -> Iterator[None]:
    """Within the block `package` is the one in `folder`, and the packages in `absent` can't be imported.

    Everything that the package needs has to be imported within the block: afterwards its name is free again, or means
    what it meant before.
    """
    names = (package, *absent)
    before = {name: module for name, module in sys.modules.items() if any(_belongs(name, root) for root in names)}
    for name in before:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is how the import system says "there is none"
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
    """Granian's Rust core that lies in `vendor` for this Python, or None: then gunicorn serves alone.

    Its Python files are left out: they start processes and read configuration, which is gunicorn's part here.

    Raises:
        ImportError: It is there, and this machine can't load it.
    """
    return _load(vendor, "granian", "_granian")


def load_orjson(vendor: str) -> Optional[Any]:
    """orjson, or None: then the standard library reads and writes JSON.

    Raises:
        ImportError: It is there, and this machine can't load it.
    """
    return _load(vendor, "orjson", "orjson")


def _load(vendor: str, package: str, module: str) -> Optional[Any]:
    for path in sorted(glob.glob(os.path.join(glob.escape(vendor), package, f"{module}.*"))):
        if path.endswith(tuple(EXTENSION_SUFFIXES)):
            spec = importlib.util.spec_from_file_location(f"{package}.{module}", path)
            assert spec is not None  # noqa: S101  (it ends as an extension does)
            assert spec.loader is not None  # noqa: S101
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
            _kept.append(loaded)
            return loaded
    return None
