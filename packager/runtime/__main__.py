"""The program inside the images: `python /opt/odahu/runtime rest|cli ...`.

Any Python 3 can read this file, so that one that is too old gets a message and not a SyntaxError.
"""

import importlib.util
import os
import sys

OLDEST = (3, 8)


def main() -> int:
    """Load the runtime so that the model can't see it (README, "Whose packages are whose"), then run the command."""
    if sys.version_info[:2] < OLDEST:
        sys.stderr.write("The serving runtime needs Python 3.8 or later; this is %d.%d.\n" % sys.version_info[:2])
        return 1
    here = os.path.dirname(os.path.abspath(__file__))
    # Python has put this folder before those of the model.
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    spec = importlib.util.spec_from_file_location("isolation", os.path.join(here, "odahu_runtime", "isolation.py"))
    assert spec is not None  # noqa: S101  (the file lies beside this one)
    assert spec.loader is not None  # noqa: S101
    isolation = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(isolation)
    with isolation.private("odahu_runtime", here):
        run = importlib.import_module("odahu_runtime.commands").prepare(sys.argv[1:])
    return int(run())


if __name__ == "__main__":
    sys.exit(main())
