"""The REST surface as a WSGI application: predictions, the model's schema, health."""

from __future__ import annotations

import re
import socket
import time
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Callable, List, NamedTuple, Tuple, Union
from urllib.parse import quote

from . import inputs, outputs, schema
from .inputs import InputError
from .model import ModelError

if TYPE_CHECKING:
    from typing import Any, Dict, Iterable, Optional, Sequence

    from .model import Model

    Environ = Dict[str, Any]
    StartResponse = Callable[[str, List[Tuple[str, str]]], Any]

MAX_BODY_BYTES = 64 * 1024 * 1024
# The server leaves a function here that ends the connection after the answer, for where the rest of the body is unread.
CLOSE = "odahu.close_connection"
_NO_BODY = 'The request has no body; send {"columns": [...], "data": [[...]]}'
_TOO_LARGE = "The body is larger than {} bytes, the most that this service reads"
_CHUNK = 64 * 1024
_DRAIN_SECONDS = 5.0
_LATIN = re.compile(r"[\x20-\x7e\xa0-\xff]*")


class Request:
    """What came before the body, whichever server read it."""

    __slots__ = ("client", "header", "method", "path")

    def __init__(self, method: str, path: str, client: str, header: Callable[[str], Optional[str]]) -> None:
        """`header` gives the value of one by its name in small letters, or None."""
        self.method = method
        self.path = path
        self.client = client
        self.header = header

    @classmethod
    def from_environ(cls, environ: Environ) -> Request:
        """Read it from what WSGI has."""

        def header(name: str) -> Optional[str]:
            name = name.upper().replace("-", "_")
            value = environ.get(name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}")
            return None if value is None else str(value)

        return cls(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("REMOTE_ADDR", "-"), header)


class Reply(NamedTuple):
    """An answer; the body is JSON unless the headers say otherwise."""

    status: int
    headers: List[Tuple[str, str]]
    body: bytes


class Job(NamedTuple):
    """What is left to do for a request: it takes the model, and the body where it `reads` one."""

    reads: bool
    run: Callable[[bytes], Reply]


class _Service(NamedTuple):
    """What the image tells about itself, and its limits."""

    name: str
    version: str
    max_body: int


class Application:
    """The REST surface of one model. Nothing that a request or the model does gets out of it but as an answer."""

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
        self._names = [
            ("Model-Name", _header(self._service.name)),
            ("Model-Version", _header(self._service.version)),
        ]
        self._routes: Dict[str, Tuple[str, Callable[[Request], Union[Reply, Job]]]] = {
            "/api/model/invoke": ("POST", self._invoke),
            "/api/model/info": ("GET", self._info),
            "/healthcheck": ("GET", self._health),
        }

    @property
    def max_body(self) -> int:
        """The largest body that is read, in bytes."""
        return self._service.max_body

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, for a server of WSGI's kind."""
        step = self.begin(Request.from_environ(environ))
        if isinstance(step, Job):
            try:
                body = _read_body(environ, self.max_body) if step.reads else b""
            except InputError as error:
                step = error_reply(error.status, str(error))
            else:
                step = step.run(body)
        start_response(f"{step.status} {HTTPStatus(step.status).phrase}", step.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [step.body]

    def begin(self, request: Request) -> Union[Reply, Job]:
        """Answer what needs neither the body nor the model; else say what is left to do."""
        path, method = request.path, request.method
        allowed, handle = self._routes.get(path, ("", None))
        if handle is None:
            return error_reply(404, f"There is no {path}; there are {', '.join(self._routes)}")
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            methods = ("GET", "HEAD") if allowed == "GET" else (allowed,)
            message = f"{method} is not allowed for {path}, only {' and '.join(methods)}"
            return error_reply(405, message, ("Allow", ", ".join(methods)))
        return handle(request)

    def _health(self, _request: Request) -> Reply:
        return json_reply(200, outputs.dumps({"status": True}))

    def _info(self, request: Request) -> Job:
        def run(_: bytes) -> Reply:
            document = schema.swagger(self._service.name, self._service.version, *self._model.schemas())
            return json_reply(200, outputs.dumps(document), self._headers(request))

        return self._job(request, run, reads=False)

    def _invoke(self, request: Request) -> Union[Reply, Job]:
        encoding = request.header("content-encoding")
        if encoding and encoding.lower() != "identity":
            return error_reply(415, f"The body is compressed ({encoding}); send it as it is")

        def run(body: bytes) -> Reply:
            text = _decode(body)
            if not text.strip():
                raise InputError(_NO_BODY)
            batch = inputs.read_batch(inputs.parse_strict(text))
            return json_reply(200, self._model.predict(batch), self._headers(request))

        return self._job(request, run, reads=True)

    def _job(self, request: Request, run: Callable[[bytes], Reply], *, reads: bool) -> Job:
        def guarded(body: bytes) -> Reply:
            try:
                return run(body)
            except InputError as error:
                return error_reply(error.status, str(error))
            except ModelError as error:
                self._log_error(f"{request.method} {request.path!r}: {error.details}")
                return error_reply(500, str(error))
            except Exception as error:  # noqa: BLE001  (a fault of ours: the thread that runs this must live on)
                self._log_error(f"{request.method} {request.path!r}: {traceback.format_exc().rstrip()}")
                return error_reply(500, f"{type(error).__name__}: {error}")

        return Job(reads, guarded)

    def _headers(self, request: Request) -> List[Tuple[str, str]]:
        request_id = request.header("request-id") or request.header("x-request-id")
        return [*self._names, ("Request-Id", _header(request_id))] if request_id else self._names


def json_reply(status: int, text: str, headers: Sequence[Tuple[str, str]] = ()) -> Reply:
    """An answer of JSON text."""
    body = text.encode()
    return Reply(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers], body)


def error_reply(status: int, message: str, *headers: Tuple[str, str]) -> Reply:
    """An error as every answer of ours has it."""
    return json_reply(status, outputs.dumps({"message": message}), headers)


def no_body() -> Reply:
    """The answer to a request that has no body and needs one."""
    return error_reply(411, _NO_BODY)


def too_large(limit: int) -> Reply:
    """The answer to a body of more than `limit` bytes."""
    return error_reply(413, _TOO_LARGE.format(limit))


def max_body_bytes(environ: Dict[str, str]) -> int:
    """The largest body that is read, in bytes.

    Raises:
        ValueError: `ODAHU_MAX_BODY_BYTES` is not a number of bytes.
    """
    text = environ.get("ODAHU_MAX_BODY_BYTES") or str(MAX_BODY_BYTES)
    if not text.isdecimal():
        raise ValueError(f"ODAHU_MAX_BODY_BYTES must be a number of bytes, not {text!r}")
    return int(text)


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
    return InputError(_TOO_LARGE.format(limit), 413)


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
