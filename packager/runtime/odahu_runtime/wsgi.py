"""The routes as a WSGI application, for gunicorn's own workers, and reading bodies."""

from __future__ import annotations

import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from .http import NO_BODY, TOO_LARGE, Request, error_reply, in_protocol_form
from .inputs import InputError
from .prediction import Job
from .router import Router

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Tuple

    from .http import Reply

    Environ = Dict[str, Any]
    StartResponse = Callable[[str, List[Tuple[str, str]]], Any]

# The server puts a function here that closes the connection after the response, if a part of the body is unread.
CLOSE = "odahu.close_connection"
_CHUNK = 64 * 1024
_DRAIN_SECONDS = 5.0


class Application(Router):
    """The routes of one model as WSGI wants them (PEP 3333)."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, for a WSGI server."""
        began = time.monotonic()
        request = Request.from_environ(environ)
        step = self.begin(request)
        if isinstance(step, Job):
            step = self.finish(environ, request, step)
        step = in_protocol_form(request, step)
        self.metrics.answered(request.path, step.status, time.monotonic() - began)
        start_response(f"{step.status} {HTTPStatus(step.status).phrase}", step.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [step.body]

    def finish(self, environ: Environ, request: Request, job: Job) -> Reply:
        """Read the body and run the job in this thread; a worker sets another method here."""
        try:
            body = read_body(environ, self.max_body) if job.reads_body else b""
        except InputError as error:
            return error_reply(error.status, str(error))
        return job.run(request, body)


def read_body(environ: Environ, limit: int) -> bytes:
    """Read the whole body, of a known length or chunked.

    Raises:
        InputError: It has no length, is too large or too slow, or ended early.
    """
    try:
        if "HTTP_TRANSFER_ENCODING" in environ:
            return _read_chunked(environ, limit)
        return _read_sized(environ, limit)
    except socket.timeout as error:
        _close(environ)
        raise InputError("The body was received too slowly", 408) from error
    except (OSError, ValueError) as error:
        _close(environ)
        raise InputError(f"The body can't be read: {error}") from error


def _read_sized(environ: Environ, limit: int) -> bytes:
    if not environ.get("CONTENT_LENGTH"):
        raise InputError(NO_BODY, 411)
    length = int(environ["CONTENT_LENGTH"])
    if length > limit:
        raise _too_large(environ, limit)
    body = _read(environ["wsgi.input"], length)
    if len(body) < length:
        _close(environ)
        raise InputError(f"The body ended after {len(body)} of {length} bytes")
    return body


def _read_chunked(environ: Environ, limit: int) -> bytes:
    body = _read(environ["wsgi.input"], limit + 1)
    if len(body) > limit:
        raise _too_large(environ, limit)
    return body


def _too_large(environ: Environ, limit: int) -> InputError:
    _drain(environ["wsgi.input"], limit)
    _close(environ)
    return InputError(TOO_LARGE.format(limit), 413)


def _read(stream: Any, length: int) -> bytes:
    parts = []
    while length > 0:
        part = stream.read(min(length, _CHUNK))
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _drain(stream: Any, most: int) -> None:
    """Read on for a while, since a client that is still sending does not see the response."""
    until = time.monotonic() + _DRAIN_SECONDS
    while most > 0 and time.monotonic() < until:
        part = stream.read(_CHUNK)
        if not part:
            break
        most -= len(part)


def _close(environ: Environ) -> None:
    environ.get(CLOSE, lambda: None)()
