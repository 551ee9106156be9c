"""Log lines that a model can't silence: they do not pass through `logging`, which models configure as they like."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

from .messages import Request

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any, Callable, Dict

STDERR = 2


def write(level: str, text: str) -> None:
    """Write one entry to stderr; it has more than one line only when `text` has."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    data = f"{stamp} [{os.getpid()}] {level} {text}\n".encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass  # nobody reads it: no reason to stop serving


def access(request: Request, status: int, size: int, seconds: float) -> None:
    """Write one line for a request: who, what, the status, the bytes of the answer and the milliseconds."""
    line = f"{request.client} {request.method} {request.path} {status} {size} {seconds * 1000:.1f}ms"
    if not line.isprintable():
        line = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)
    write("ACCESS", line)


class Log:
    """What gunicorn wants of its `logger_class`."""

    def __init__(self, cfg: Any) -> None:
        """Take gunicorn's configuration, of which nothing is needed."""
        self.cfg = cfg

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The methods of a logger: `critical`, `error`, `warning` and `info`, each with a text and its arguments."""
        if name not in ("critical", "error", "warning", "info"):
            raise AttributeError(name)

        def log(text: Any, *args: Any, **_: Any) -> None:
            write(name.upper(), str(text) % args if args else str(text))

        return log

    def debug(self, *_: Any, **__: Any) -> None:
        """Say nothing."""

    def exception(self, text: Any, *args: Any, **_: Any) -> None:
        """Write an error with the traceback of the exception that is being handled."""
        text = str(text) % args if args else str(text)
        if isinstance(sys.exc_info()[1], socket.timeout):
            write("WARNING", f"{text} The client was too slow.")
        else:
            write("ERROR", f"{text}\n{traceback.format_exc().rstrip()}")

    def access(self, resp: Any, _req: Any, environ: Dict[str, Any], request_time: timedelta) -> None:
        """Write the line of a request."""
        path = str(environ.get("RAW_URI", "-")).split("?", 1)[0]
        status = int(str(resp.status).split(None, 1)[0])
        request = Request.from_environ({**environ, "PATH_INFO": path})
        access(request, status, resp.sent, request_time.total_seconds())

    def reopen_files(self) -> None:
        """Do nothing: there are no files."""

    def close_on_exec(self) -> None:
        """Do nothing: stderr is for everyone."""
