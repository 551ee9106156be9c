"""The client of the API service."""

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
_MAX_MESSAGE = 2000
_REFUSED = {
    401: (
        "the API service refuses the token",
        "log in again, or renew the token of the Jupyter server",
    ),
    403: ("the API service does not allow this", "the token may be read-only; ask the administrator of the service"),
}


class Service:
    """A client of the API service; it reads URL and token for each request."""

    def __init__(self, find_access: Callable[[], Access], transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Use a function that returns URL and token, and optionally a transport for httpx."""
        self._find_access = find_access
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, transport=transport)

    @property
    def url(self) -> str:
        """The URL of the service; raises ServiceError if it is not configured."""
        return self._find_access().url

    async def ask(self, method: str, path: str, *, params: dict[str, str] | None = None, body: object = None) -> Any:  # noqa: ANN401  (JSON)
        """Send a request below the API's base path and return the JSON of the response.

        Raises:
            ServiceError: The service is unreachable, or refuses the request; with its message.
        """
        async with self._answer(method, path, params=params, body=body, timeout=_TIMEOUT) as answer:
            await answer.aread()
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise ServiceError(
                f"the response of {answer.url} is not JSON", hint="check that this is the URL of the API service"
            ) from error

    async def log(self, path: str, *, follow: bool) -> AsyncIterator[bytes]:
        """Yield a log as it is written; with `follow`, until the packaging ends.

        Raises:
            ServiceError: The service is unreachable, refuses the request, or the stream breaks.
        """
        timeout = httpx.Timeout(30.0, connect=10.0, read=None)  # a build may log nothing for a long time
        params = {"follow": "true" if follow else "false"}
        async with self._answer("GET", path, params=params, timeout=timeout) as answer:
            try:
                async for chunk in answer.aiter_bytes():
                    yield chunk
            except httpx.HTTPError as error:
                raise ServiceError(f"the log stream broke: {error or type(error).__name__}") from error

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
            # Other messages are dropped: httpx quotes invalid headers, which contain the token.
            is_safe = isinstance(error, httpx.NetworkError | httpx.TimeoutException | httpx.RemoteProtocolError)
            reason = str(error) if is_safe and str(error) else type(error).__name__
            raise ServiceError(
                f"the API service at {access.url} is unreachable: {reason}",
                hint="check that it runs, its URL and the token",
            ) from None


def _refusal(answer: httpx.Response) -> ServiceError:
    try:
        message = str(json.loads(answer.text)["message"])
    except (ValueError, KeyError, TypeError):
        message = " ".join(answer.text.split()) or answer.reason_phrase
    message = message[:_MAX_MESSAGE]
    if answer.status_code in _REFUSED:
        what, hint = _REFUSED[answer.status_code]
        # JupyterLab interprets 401 and 403 as its own login errors.
        return ServiceError(f"{what}: {message}", hint=hint, status=502)
    if answer.is_client_error:
        return ServiceError(message, status=answer.status_code)
    return ServiceError(f"the API service answered {answer.status_code}: {message}", hint="see the log of the service")
