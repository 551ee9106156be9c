"""The REST surface as a WSGI application: predictions, the model's schema, health."""

from __future__ import annotations

import re
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from . import inputs, outputs, schema
from .inputs import InputError
from .model import ModelError

if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, List, Tuple

    from .model import Model

    Environ = Dict[str, Any]
    StartResponse = Callable[[str, List[Tuple[str, str]]], Any]

MAX_BODY_BYTES = 64 * 1024 * 1024
# The server leaves a function here that ends the connection after the answer, for where the rest of the body is unread.
CLOSE = "odahu.close_connection"
_NO_BODY = 'The request has no body; send {"columns": [...], "data": [[...]]}'
_CHUNK = 64 * 1024
_DRAIN_SECONDS = 5.0
_LATIN = re.compile(r"[\x20-\x7e\xa0-\xff]*")


class Answer(NamedTuple):
    """What is sent back; `text` is JSON."""

    status: int
    text: str
    headers: Tuple[Tuple[str, str], ...] = ()


class _Service(NamedTuple):
    """What the image tells about itself, and its limits."""

    name: str
    version: str
    max_body: int


class Application:
    """The WSGI application of one model."""

    def __init__(self, model: Model, environ: Dict[str, str], log_error: Callable[[str], None]) -> None:
        """Serve `model` under the name, the version and the limit that `environ` gives.

        Raises:
            ValueError: `ODAHU_MAX_BODY_BYTES` is not a number.
        """
        self._model = model
        self._log_error = log_error
        self._service = _Service(
            environ.get("ODAHU_MODEL_NAME", "model"),
            environ.get("ODAHU_MODEL_VERSION", "unknown"),
            max_body_bytes(environ),
        )
        self._routes: Dict[str, Tuple[str, Callable[[Environ], Answer]]] = {
            "/api/model/invoke": ("POST", self._invoke),
            "/api/model/info": ("GET", self._info),
            "/healthcheck": ("GET", self._health),
        }

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; nothing that a request or the model does gets out of here but as JSON."""
        try:
            answer = self._route(environ)
        except InputError as error:
            answer = _error(error.status, str(error))
        except ModelError as error:
            self._log_error(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']!r}: {error.details}")
            answer = _error(500, str(error))
        body = answer.text.encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *answer.headers]
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _route(self, environ: Environ) -> Answer:
        path = environ["PATH_INFO"]
        method, handle = self._routes.get(path, ("", None))
        if handle is None:
            return _error(404, f"There is no {path}; there are {', '.join(self._routes)}")
        allowed = ("GET", "HEAD") if method == "GET" else (method,)
        if environ["REQUEST_METHOD"] not in allowed:
            message = f"{environ['REQUEST_METHOD']} is not allowed for {path}, only {' and '.join(allowed)}"
            return _error(405, message, ("Allow", ", ".join(allowed)))
        return handle(environ)

    def _health(self, _environ: Environ) -> Answer:
        return Answer(200, outputs.dumps({"status": True}))

    def _info(self, environ: Environ) -> Answer:
        document = schema.swagger(self._service.name, self._service.version, *self._model.schemas())
        return Answer(200, outputs.dumps(document), self._headers(environ))

    def _invoke(self, environ: Environ) -> Answer:
        encoding = environ.get("HTTP_CONTENT_ENCODING", "identity")
        if encoding.lower() != "identity":
            raise InputError(f"The body is compressed ({encoding}); send it as it is", 415)
        text = _decode(_read_body(environ, self._service.max_body))
        if not text.strip():
            raise InputError(_NO_BODY)
        batch = inputs.read_batch(inputs.parse_strict(text))
        return Answer(200, self._model.predict(batch), self._headers(environ))

    def _headers(self, environ: Environ) -> Tuple[Tuple[str, str], ...]:
        headers = [("Model-Name", _header(self._service.name)), ("Model-Version", _header(self._service.version))]
        request_id = environ.get("HTTP_REQUEST_ID") or environ.get("HTTP_X_REQUEST_ID")
        if request_id:
            headers.append(("Request-Id", _header(request_id)))
        return tuple(headers)


def max_body_bytes(environ: Dict[str, str]) -> int:
    """The largest body that is read, in bytes.

    Raises:
        ValueError: `ODAHU_MAX_BODY_BYTES` is not a number of bytes.
    """
    text = environ.get("ODAHU_MAX_BODY_BYTES") or str(MAX_BODY_BYTES)
    if not text.isdecimal():
        raise ValueError(f"ODAHU_MAX_BODY_BYTES must be a number of bytes, not {text!r}")
    return int(text)


def _error(status: int, message: str, *headers: Tuple[str, str]) -> Answer:
    return Answer(status, outputs.dumps({"message": message}), headers)


def _header(text: str) -> str:
    """Text that a header can carry: what it can't is percent-encoded."""
    return text if _LATIN.fullmatch(text) else quote(text, safe=" /:@,;=+$!*'()[]")


def _read_body(environ: Environ, limit: int) -> bytes:
    """The whole body, of a known length or chunked.

    Raises:
        InputError: It has no length, is too large, comes too slowly, or ended early.
    """
    try:
        if "HTTP_TRANSFER_ENCODING" in environ:
            return _read_chunked(environ, limit)
        return _read_sized(environ, limit)
    except socket.timeout as error:
        _close(environ)
        raise InputError("The body came too slowly", 408) from error
    except (OSError, ValueError) as error:
        _close(environ)
        raise InputError(f"The body can't be read: {error}") from error


def _read_sized(environ: Environ, limit: int) -> bytes:
    if not environ.get("CONTENT_LENGTH"):
        raise InputError(_NO_BODY, 411)
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
    return InputError(f"The body is larger than {limit} bytes, the most that this service reads", 413)


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
    """Read on for a while, since a client that is still sending does not see an answer."""
    until = time.monotonic() + _DRAIN_SECONDS
    while most > 0 and time.monotonic() < until:
        part = stream.read(_CHUNK)
        if not part:
            break
        most -= len(part)


def _close(environ: Environ) -> None:
    environ.get(CLOSE, lambda: None)()


def _decode(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"The body is not UTF-8: {error.reason} at byte {error.start}") from error
