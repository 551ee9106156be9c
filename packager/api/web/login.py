"""Logging in and out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from packager.api.identity.base import UnansweredError, UnknownCallerError
from packager.api.web.rendering import render
from packager.api.web.session import COOKIE, PageRoute, form_of, log_in, remember

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.post("/ui/login")
async def login(request: Request, form: Annotated[dict[str, str], Depends(form_of)]) -> Response:
    """Take a token."""
    token, target = form.get("token", "").strip(), form.get("target", "/")
    try:
        await log_in(request, token)
    except (UnknownCallerError, UnansweredError) as error:
        return render(request, "login", HTTPStatus.UNAUTHORIZED, message=str(error), target=target)
    return remember(request, token, target)


@router.post("/ui/logout")
def logout() -> Response:
    """Forget the token."""
    answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer
