"""Sessions of the pages: the token is in an HTTP-only cookie, and forms are accepted from our own pages only."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse, Response

from packager.api.identity.base import IdentityUnavailableError, UnknownCallerError
from packager.api.routes.common import service_of
from packager.api.web.rendering import render, security_headers
from packager.errors import EntityNotFoundError, PackagerError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from packager.api.identity import Principal

COOKIE = "packager_token"
# The syntax of RFC 6750. Browsers drop cookies above 4096 bytes.
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_MAX_TOKEN = 3900
_PUBLIC = {"/ui/login", "/ui/logout"}
_READING = {*_PUBLIC, "/ui/check"}  # forms that a read-only caller may send


class PageRoute(APIRoute):
    """The route of a page: needs a known caller, refuses forms of other sites, and shows errors as pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests."""
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
    if path in _PUBLIC:
        return None
    try:
        request.state.principal = await service_of(request).identity.authenticate(request.cookies.get(COOKIE, ""))
    except UnknownCallerError as error:
        message = str(error) if COOKIE in request.cookies else ""
        target = path if request.method == "GET" else "/"
        if request.method == "GET" and request.url.query:
            target += f"?{request.url.query}"
        return render(request, "login", HTTPStatus.UNAUTHORIZED, message=message, target=target)
    except IdentityUnavailableError as error:
        return render(request, "failure", HTTPStatus.SERVICE_UNAVAILABLE, message=str(error), hint="Try again.")
    if request.method == "POST" and path not in _READING and not request.state.principal.may_write:
        message = "The token is read-only: it may not change anything."
        return render(request, "failure", HTTPStatus.FORBIDDEN, message=message, hint="Log in with another token.")
    return None


def _failure(request: Request, error: PackagerError | HTTPException) -> Response:
    if isinstance(error, HTTPException):
        return render(request, "failure", error.status_code, message=str(error.detail), hint="")
    statuses = {EntityNotFoundError: HTTPStatus.NOT_FOUND, RequestError: HTTPStatus.BAD_REQUEST}
    status = next((code for kind, code in statuses.items() if isinstance(error, kind)), None)
    return render(request, "failure", status or HTTPStatus.CONFLICT, message=error.message, hint=error.hint)


def is_own_form(request: Request) -> bool:
    """Return whether a page of ours sent the form, as the browser tells."""
    if site := request.headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


async def form_of(request: Request) -> dict[str, str]:
    """Parse the fields of a form.

    Raises:
        RequestError: The body is not a form.
    """
    try:
        return dict(parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise RequestError("the form is invalid") from error


async def log_in(request: Request, token: str) -> Principal:
    """Return the caller of a token.

    Raises:
        UnknownCallerError: The token is invalid, or does not fit into a cookie; the text is safe to show.
        IdentityUnavailableError: The token cannot be verified at the moment.
    """
    if len(token) > _MAX_TOKEN:
        raise UnknownCallerError("the token is too long for a cookie; create one with `packager api token`")
    if not _TOKEN.fullmatch(token):
        raise UnknownCallerError("this is not a token")
    return await service_of(request).identity.authenticate(token)


def remember(request: Request, token: str, target: str) -> Response:
    """Redirect to a page of ours, with the token in a session cookie."""
    answer = RedirectResponse(own_path(target), HTTPStatus.SEE_OTHER)
    # Behind an ingress that terminates TLS, the URL is http://. A forged header affects only the sender.
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    answer.set_cookie(COOKIE, token, path="/", secure=secure, httponly=True, samesite="strict")
    return answer


def own_path(target: str) -> str:
    r"""Return the target if it is a path of ours, else `/`; browsers read `\` as `/`, and `//` starts another site."""
    return target if re.fullmatch(r"/(?![/\\])[^\\\x00-\x20\x7f-\uffff]*", target) else "/"


router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.post("/ui/login")
async def login(request: Request, form: Annotated[dict[str, str], Depends(form_of)]) -> Response:
    """Log in with a token."""
    token, target = form.get("token", "").strip(), form.get("target", "/")
    try:
        await log_in(request, token)
    except (UnknownCallerError, IdentityUnavailableError) as error:
        return render(request, "login", HTTPStatus.UNAUTHORIZED, message=str(error), target=target)
    return remember(request, token, target)


@router.post("/ui/logout")
def logout() -> Response:
    """Log out."""
    answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer
