"""Log lines that a model can't silence: they do not pass through `logging`, which models configure as they like."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING

from .messages import Request

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any, Callable, Dict, Optional

STDERR = 2
_LONGEST_ID = 200
_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


_style = {"json": False}


def use_json(*, use: bool) -> None:
    """Write every entry as a JSON object on a line, or as text."""
    _style["json"] = use


def write(level: str, text: str, fields: Optional[Dict[str, Any]] = None) -> None:
    """Write one entry to stderr; as text it has more than one line only when `text` has, and no fields."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if _style["json"]:
        entry = {"time": stamp, "pid": os.getpid(), "level": level, "message": text, **(fields or {})}
        data = (json.dumps(entry) + "\n").encode()
    else:
        data = f"{stamp} [{os.getpid()}] {level} {text}\n".encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(STDERR, data) :]
    except OSError:
        pass  # nobody reads it: no reason to stop serving


def access(request: Request, status: int, size: int, seconds: float) -> None:
    """Write one line for a request: who, what, the status, the bytes of the answer and the milliseconds.

    The id that the client gave the request, and the trace it belongs to (w3.org/TR/trace-context), stand behind.
    """
    line = f"{request.client} {request.method} {request.path} {status} {size} {seconds * 1000:.1f}ms"
    request_id, trace = request.header("request-id") or request.header("x-request-id"), _trace(request)
    if request_id:
        line += f" request-id={request_id[:_LONGEST_ID]}"
    if trace:
        line += f" trace={trace['trace_id']} span={trace['span_id']}"
    if not line.isprintable():
        line = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)
    if not _style["json"]:
        write("ACCESS", line)
        return
    fields: Dict[str, Any] = {
        "client": request.client,
        "method": request.method,
        "path": request.path,
        "status": status,
        "bytes": size,
        "milliseconds": round(seconds * 1000, 3),
        **({"request_id": request_id[:_LONGEST_ID]} if request_id else {}),
        **trace,
    }
    write("ACCESS", line, fields)


def _trace(request: Request) -> Dict[str, str]:
    found = _TRACEPARENT.fullmatch(request.header("traceparent") or "")
    return {"trace_id": found.group(1), "span_id": found.group(2)} if found else {}


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
