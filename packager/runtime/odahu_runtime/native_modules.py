"""The compiled parts, where an image has them: loaded by their files, so that their names stay the model's to use."""

from __future__ import annotations

import glob
import importlib.util
import os
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, List, Optional

# No name holds them, and what they consist of goes with them: without its module orjson ends the process with a
# SIGSEGV where it would raise.
_loaded: List[Any] = []


def granian(vendor: str) -> Optional[Any]:
    """Granian's Rust core that lies in `vendor` for this Python, or None: then gunicorn serves alone.

    Its Python files are left out: they start processes and read configuration, which is gunicorn's part here.

    Raises:
        ImportError: It is there, and this machine can't load it.
    """
    return _load(vendor, "granian", "_granian")


def orjson(vendor: str) -> Optional[Any]:
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
            _loaded.append(loaded)
            return loaded
    return None
