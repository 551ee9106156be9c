"""Requests and replies, independent of the server that carries them."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Callable, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import quote

from . import outputs

if TYPE_CHECKING:
    from typing import Any, Dict, Sequence

    Environ = Dict[str, Any]

NO_BODY = 'The request has no body; send {"columns": [...], "data": [[...]]}'
TOO_LARGE = "The body is larger than {} bytes, the limit of this service"
_PLAIN = re.compile(r"[\x20-\x7e]*")


class Request:
    """The head of a request."""

    __slots__ = ("client", "header", "method", "path")

    def __init__(self, method: str, path: str, client: str, header: Callable[[str], Optional[str]]) -> None:
        """`header` returns the value of a header by its name in lower case, or None."""
        self.method = method
        self.path = path
        self.client = client
        self.header = header

    @classmethod
    def from_environ(cls, environ: Environ) -> Request:
        """Read it from a WSGI environment."""

        def header(name: str) -> Optional[str]:
            name = name.upper().replace("-", "_")
            value = environ.get(name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}")
            return None if value is None else str(value)

        return cls(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("REMOTE_ADDR", "-"), header)


class Reply(NamedTuple):
    """A response; the body is JSON unless the headers say otherwise."""

    status: int
    headers: List[Tuple[str, str]]
    body: bytes


def json_reply(status: int, text: Union[str, bytes], headers: Sequence[Tuple[str, str]] = ()) -> Reply:
    """Return a response of JSON text."""
    body = text.encode() if isinstance(text, str) else text
    return Reply(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers], body)


def text_reply(status: int, text: str, kind: str) -> Reply:
    """Return a response of text of a media type."""
    body = text.encode()
    return Reply(status, [("Content-Type", kind), ("Content-Length", str(len(body)))], body)


def error_reply(status: int, message: str, *headers: Tuple[str, str]) -> Reply:
    """Return an error response: `{"message": ...}`."""
    return json_reply(status, outputs.dumps({"message": message}), headers)


def no_body() -> Reply:
    """Return the response to a request that lacks its body."""
    return error_reply(411, NO_BODY)


def too_large(limit: int) -> Reply:
    """Return the response to a body of more than `limit` bytes."""
    return error_reply(413, TOO_LARGE.format(limit))


def in_protocol_form(request: Request, reply: Reply) -> Reply:
    """Return the reply in the form of the request's protocol: Open Inference errors are `{"error": ...}`."""
    start, ours = b'{"message":', b'{"error":'
    if reply.status < HTTPStatus.BAD_REQUEST or not request.path.startswith("/v2") or not reply.body.startswith(start):
        return reply
    body = ours + reply.body[len(start) :]
    headers = [(name, str(len(body)) if name == "Content-Length" else value) for name, value in reply.headers]
    return Reply(reply.status, headers, body)


def header_text(text: str) -> str:
    """Return text that a header can carry, percent-encoded where necessary."""
    return text if _PLAIN.fullmatch(text) else quote(text, safe=" /:@,;=+$!*'()[]")
