"""The Rust core of granian, where an image has it: loaded by its file, so that its name stays the model's to use."""

from __future__ import annotations

import glob
import importlib.util
import os
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Optional

_FOLDER = "granian"


def load(vendor: str) -> Optional[Any]:
    """The core that lies in `vendor` for this Python, or None: then gunicorn serves alone.

    Its Python files are left out: they start processes and read configuration, which is gunicorn's part here.

    Raises:
        ImportError: It is there, and this machine can't load it.
    """
    for path in sorted(glob.glob(os.path.join(glob.escape(vendor), _FOLDER, "_granian*"))):
        if path.endswith(tuple(EXTENSION_SUFFIXES)):
            spec = importlib.util.spec_from_file_location("granian._granian", path)
            assert spec is not None  # noqa: S101  (it ends as an extension does)
            assert spec.loader is not None  # noqa: S101
            core = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(core)
            return core
    return None
