"""Log lines that a model can't silence: they do not pass through `logging`, which models configure as they like."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
import traceback
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING

from .http import Request

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, Union

STDERR = 2
_LONGEST_ID = 200
_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")


_style = {"json": False}
# Entries to be written, and requests whose lines are formatted then. Limited, since stderr may never be read.
_pending: Deque[Union[str, Tuple[float, Request, int, int, float]]] = deque(maxlen=10_000)
_MOST_PENDING = 64
_writing = Lock()
# The last second and process ID, its timestamp, and the beginning of a text line.
_second: List[Any] = [(0, 0), "", ""]


def use_json(*, use: bool) -> None:
    """Write every entry as a JSON object on a line, or as text."""
    _style["json"] = use


def write(level: str, text: str, fields: Optional[Dict[str, Any]] = None) -> None:
    """Write one entry to stderr; as text it has more than one line only when `text` has, and no fields."""
    _pending.append(_entry(time.time(), level, text, fields))
    flush()


def flush() -> None:
    """Write all pending entries, unless another thread is doing so."""
    while _pending and _writing.acquire(blocking=False):
        try:
            entries = [_pending.popleft() for _ in range(len(_pending))]
            lines = [entry if isinstance(entry, str) else _access(*entry) for entry in entries]
            data = "".join(lines).encode("utf-8", "backslashreplace")
            while data:
                data = data[os.write(STDERR, data) :]
        except OSError:  # noqa: PERF203
            pass  # the reader has gone, which is no reason to stop serving
        finally:
            _writing.release()


def access(request: Request, status: int, size: int, seconds: float, *, last: bool = True) -> None:
    """Write the access line of a request: client, method, path, status, bytes of the response and milliseconds.

    The request ID from the client and its trace (w3.org/TR/trace-context) follow. Unless it is the `last` for now, the
    line may be written later, with others.
    """
    _pending.append((time.time(), request, status, size, seconds))
    if last or len(_pending) >= _MOST_PENDING:
        flush()


def _begin(when: float) -> List[Any]:
    """Return the timestamp of a second, and the beginning of its text lines."""
    now = int(when), os.getpid()
    if _second[0] != now:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now[0]))
        _second[:] = now, stamp, f"{stamp} [{now[1]}]"
    return _second


def _entry(when: float, level: str, text: str, fields: Optional[Dict[str, Any]] = None) -> str:
    _, stamp, begin = _begin(when)
    if _style["json"]:
        entry = {"time": stamp, "pid": os.getpid(), "level": level, "message": text, **(fields or {})}
        return json.dumps(entry) + "\n"
    return f"{begin} {level} {text}\n"


def _access(when: float, request: Request, status: int, size: int, seconds: float) -> str:
    line = f"{request.client} {request.method} {request.path} {status} {size} {seconds * 1000:.1f}ms"
    request_id = request.header("request-id") or request.header("x-request-id")
    trace = _trace(request)
    if request_id:
        line += f" request-id={request_id[:_LONGEST_ID]}"
    if trace:
        line += f" trace={trace['trace_id']} span={trace['span_id']}"
    if not line.isprintable():
        line = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)
    if not _style["json"]:
        return f"{_begin(when)[2]} ACCESS {line}\n"
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
    return _entry(when, "ACCESS", line, fields)


def _trace(request: Request) -> Dict[str, str]:
    given = request.header("traceparent")
    found = _TRACEPARENT.fullmatch(given) if given else None
    return {"trace_id": found.group(1), "span_id": found.group(2)} if found else {}


class Log:
    """The interface of gunicorn's `logger_class`."""

    def __init__(self, cfg: Any) -> None:
        """Keep gunicorn's configuration, which is not used."""
        self.cfg = cfg

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The methods of a logger: `critical`, `error`, `warning` and `info`, each with a text and its arguments."""
        if name not in ("critical", "error", "warning", "info"):
            raise AttributeError(name)

        def log(text: Any, *args: Any, **_: Any) -> None:
            write(name.upper(), str(text) % args if args else str(text))

        return log

    def debug(self, *_: Any, **__: Any) -> None:
        """Write nothing."""

    def exception(self, text: Any, *args: Any, **_: Any) -> None:
        """Write an error with the traceback of the exception that is being handled."""
        text = str(text) % args if args else str(text)
        if isinstance(sys.exc_info()[1], socket.timeout):
            write("WARNING", f"{text} The client was too slow.")
        else:
            write("ERROR", f"{text}\n{traceback.format_exc().rstrip()}")

    def access(self, resp: Any, _req: Any, environ: Dict[str, Any], request_time: timedelta) -> None:
        """Write the access line of a request."""
        path = str(environ.get("RAW_URI", "-")).split("?", 1)[0]
        status = int(str(resp.status).split(None, 1)[0])
        request = Request.from_environ({**environ, "PATH_INFO": path})
        access(request, status, resp.sent, request_time.total_seconds())

    def reopen_files(self) -> None:
        """Do nothing: there are no files."""

    def close_on_exec(self) -> None:
        """Do nothing: stderr is for everyone."""
