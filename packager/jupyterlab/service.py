"""The API service as the panel's server asks it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx

from packager.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from packager.jupyterlab.access import Access

BASE = "/api/v1"
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_SHOWN = 2000
_REFUSED = {
    401: (
        "the API service doesn't accept the token",
        "log in anew, or renew the token that JupyterLab is started with",
    ),
    403: ("the API service doesn't allow this", "the token may be for reading only; ask who runs the service"),
}


class Service:
    """A client of the API service; finds the access anew for each request."""

    def __init__(self, find_access: Callable[[], Access], transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Take how the access is found, and what carries the requests (httpx's own by default)."""
        self._find_access = find_access
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, transport=transport)

    @property
    def url(self) -> str:
        """The service's address; raises ServiceError where there is none."""
        return self._find_access().url

    async def ask(self, method: str, path: str, *, params: dict[str, str] | None = None, body: object = None) -> Any:  # noqa: ANN401  (JSON)
        """Send a request below the API's base path and return the answer's JSON.

        Raises:
            ServiceError: The service can't be reached, or refuses; with its own message.
        """
        async with self._answer(method, path, params=params, body=body, timeout=_TIMEOUT) as answer:
            await answer.aread()
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise ServiceError(
                f"{answer.url} answered with something else than JSON", hint="is this the address of the API service?"
            ) from error

    async def log(self, path: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield a log as it comes, till the packaging ends when it is followed.

        Raises:
            ServiceError: The service can't be reached, or refuses; or the log breaks off.
        """
        timeout = httpx.Timeout(30.0, connect=10.0, read=None)  # a build may say nothing for a long time
        params = {"follow": "true" if follow else "false"}
        async with self._answer("GET", path, params=params, timeout=timeout) as answer:
            try:
                async for chunk in answer.aiter_bytes():
                    yield chunk
            except httpx.HTTPError as error:
                raise ServiceError(f"the log broke off: {error or type(error).__name__}") from error

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        *,
        timeout: httpx.Timeout,
        params: dict[str, str] | None = None,
        body: object = None,
    ) -> AsyncIterator[httpx.Response]:
        access = self._find_access()
        headers = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        url = f"{access.url}{BASE}{path}"
        try:
            request = self._client.build_request(
                method, url, params=params, headers=headers, timeout=timeout, json=body
            )
            answer = await self._client.send(request, stream=True)
            try:
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal(answer)
                yield answer
            finally:
                await answer.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            # Only what the network said is passed on: httpx quotes a header that it can't send, and with it the token.
            told = isinstance(error, httpx.NetworkError | httpx.TimeoutException | httpx.RemoteProtocolError)
            reason = str(error) if told and str(error) else type(error).__name__
            raise ServiceError(
                f"the API service at {access.url} can't be reached: {reason}",
                hint="is it running, and are its address and the token right?",
            ) from None


def _refusal(answer: httpx.Response) -> ServiceError:
    try:
        message = str(json.loads(answer.text)["message"])
    except (ValueError, KeyError, TypeError):
        message = " ".join(answer.text.split()) or answer.reason_phrase
    message = message[:_SHOWN]
    if answer.status_code in _REFUSED:
        what, hint = _REFUSED[answer.status_code]
        # JupyterLab takes these two codes for its own login's.
        return ServiceError(f"{what}: {message}", hint=hint, status=502)
    if answer.is_client_error:
        return ServiceError(message, status=answer.status_code)
    return ServiceError(f"the API service answered {answer.status_code}: {message}", hint="its own log says more")
