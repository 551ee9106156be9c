"""Who looks at a page: the token lies in a cookie that no script reads, and forms count only from our own pages."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import HTTPException, Request
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse

from packager.api.identity.base import UnansweredError, UnknownCallerError
from packager.api.routes.common import service_of
from packager.api.web.rendering import render, security_headers
from packager.errors import EntityNotFoundError, PackagerError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.responses import Response

    from packager.api.identity import Principal

COOKIE = "packager_token"
# RFC 6750's own form of a bearer token; browsers drop cookies of more than 4096 bytes.
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_LONGEST = 3900
_OPEN = {"/ui/login", "/ui/logout"}
_FREE = {*_OPEN, "/ui/check"}  # what a read-only caller may send


class PageRoute(APIRoute):
    """A route of a page: wants a known caller, refuses other sites' forms, and answers failures as pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        handle = super().get_route_handler()

        async def as_page(request: Request) -> Response:
            answer = await _refusal(request)
            if answer is None:
                try:
                    answer = await handle(request)
                except (PackagerError, HTTPException) as error:
                    answer = _failure(request, error)
            for name, value in security_headers().items():
                answer.headers.setdefault(name, value)
            return answer

        return as_page


async def _refusal(request: Request) -> Response | None:
    path = request.url.path
    if request.method == "POST" and not is_own_form(request):
        return render(request, "failure", HTTPStatus.FORBIDDEN, message="The form was sent by another site.", hint="")
    if path in _OPEN:
        return None
    try:
        request.state.principal = await service_of(request).identity.authenticate(request.cookies.get(COOKIE, ""))
    except UnknownCallerError as error:
        said = str(error) if COOKIE in request.cookies else ""
        target = path if request.method == "GET" else "/"
        if request.method == "GET" and request.url.query:
            target += f"?{request.url.query}"
        return render(request, "login", HTTPStatus.UNAUTHORIZED, message=said, target=target)
    except UnansweredError as error:
        return render(request, "failure", HTTPStatus.SERVICE_UNAVAILABLE, message=str(error), hint="Try again.")
    if request.method == "POST" and path not in _FREE and not request.state.principal.may_write:
        said = "The token is read-only: it may not change anything."
        return render(request, "failure", HTTPStatus.FORBIDDEN, message=said, hint="Log in with another one.")
    return None


def _failure(request: Request, error: PackagerError | HTTPException) -> Response:
    if isinstance(error, HTTPException):
        return render(request, "failure", error.status_code, message=str(error.detail), hint="")
    statuses = {EntityNotFoundError: HTTPStatus.NOT_FOUND, RequestError: HTTPStatus.BAD_REQUEST}
    status = next((code for kind, code in statuses.items() if isinstance(error, kind)), None)
    return render(request, "failure", status or HTTPStatus.CONFLICT, message=error.message, hint=error.hint)


def is_own_form(request: Request) -> bool:
    """Whether a browser says that a page of ours has sent this; something else than a browser is nobody's victim."""
    if site := request.headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


async def form_of(request: Request) -> dict[str, str]:
    """Read a form's fields.

    Raises:
        RequestError: It is none.
    """
    try:
        return dict(parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise RequestError("the form can't be read") from error


async def log_in(request: Request, token: str) -> Principal:
    """Return whom a token belongs to.

    Raises:
        UnknownCallerError: To nobody, or it can't be kept in a cookie; the text may be shown.
        UnansweredError: That can't be told at the moment.
    """
    if len(token) > _LONGEST:
        raise UnknownCallerError("the token is too long for a cookie; make a token by `packager api token`")
    if not _TOKEN.fullmatch(token):
        raise UnknownCallerError("that is no token")
    return await service_of(request).identity.authenticate(token)


def remember(request: Request, token: str, target: str) -> Response:
    """Go on to a page of ours, with the token in a cookie till the browser is closed."""
    answer = RedirectResponse(own_path(target), HTTPStatus.SEE_OTHER)
    # Behind an ingress that ends TLS the address is http://; who sends the header without one harms only themselves.
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    answer.set_cookie(COOKIE, token, path="/", secure=secure, httponly=True, samesite="strict")
    return answer


def own_path(target: str) -> str:
    r"""Return a path of ours, whatever was asked for; browsers read `\` as `/`, and `//` begins another site."""
    return target if re.fullmatch(r"/(?![/\\])[^\\\x00-\x20\x7f-\uffff]*", target) else "/"
