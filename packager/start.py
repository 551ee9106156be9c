"""Where the programs start: a stop is answered from the first moment, before anything heavy is imported, to the last.

The imports take a second or two, and a process with the id 1, as in a container, has no default action for signals.
"""

from __future__ import annotations

import os
import signal
import sys


def answer_stop(number: int, _frame: object) -> None:
    """End the process at a stop before the work has begun; after it, let it end as it was about to."""
    is_over = getattr(sys.modules.get("packager.system.signals"), "is_over", None)
    if is_over is not None and is_over():
        return  # what it has come to was said, and the process is about to end
    sys.stderr.write(f"packager: interrupted by {signal.Signals(number).name} before it had begun\n")
    sys.stderr.flush()
    os._exit(128 + number)


def _prepare() -> None:
    """Answer signals, and leave out an import: httpx brings a command line client of its own, and a sixth of our start.

    Where that client's parts aren't installed, httpx does without it; so it does with this entry, at which an import
    fails (docs.python.org/3/reference/import.html, "The module cache").
    """
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, answer_stop)


def main() -> None:
    """Run `packager`."""
    _prepare()
    from packager import cli  # noqa: PLC0415  (after the handlers)

    cli.main()


def pack_to_rest() -> None:
    """Run `odahu-flow-pack-to-rest [MODEL] RESOURCE_FILE`."""
    _prepare()
    from packager import cli  # noqa: PLC0415  (after the handlers)

    cli.pack_to("docker-rest")


def pack_to_cli() -> None:
    """Run `odahu-flow-pack-to-cli [MODEL] RESOURCE_FILE`."""
    _prepare()
    from packager import cli  # noqa: PLC0415  (after the handlers)

    cli.pack_to("docker-cli")
