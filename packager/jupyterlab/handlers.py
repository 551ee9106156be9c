"""The routes of the panel in the Jupyter server: lists, logs and changes of the API, without its token."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import iostream, web

from packager import __version__
from packager.errors import PackagerError, RequestError, ServiceError
from packager.jupyterlab.submission import PATHS, submit
from packager.models.document_templates import document_templates
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from packager.jupyterlab.service import Service

log = logging.getLogger(__name__)

_PATHS = {
    "packagings": PATHS["ModelPackaging"],
    "integrations": PATHS["PackagingIntegration"],
    "connections": PATHS["Connection"],
}
_COLLECTION = r"(packagings|integrations|connections)"
_ID = r"([A-Za-z0-9][A-Za-z0-9_.-]*)"
_PAGE = "100"
_Method = TypeVar("_Method", bound="Callable[..., Awaitable[None]]")


class PanelHandler(APIHandler):
    """Base class of the handlers: the service, and error responses."""

    auth_resource: ClassVar[str] = "packager"

    def initialize(self, service: Service) -> None:
        """Set the client of the service."""
        self.service = service

    def refuse(self, error: PackagerError) -> None:
        """Answer with the message and the hint of an error."""
        status = error.status if isinstance(error, ServiceError) else 400
        self.set_status(status)
        self.finish({"message": error.message, "hint": error.hint})


def answering(method: _Method) -> _Method:
    """Require an authorized user of this Jupyter server, and answer errors."""

    @wraps(method)
    async def answer(self: PanelHandler, *args: str) -> None:
        try:
            await method(self, *args)
        except PackagerError as error:
            log.warning("packager panel: %s", error.message)
            self.refuse(error)

    return cast("_Method", web.authenticated(authorized(answer)))


class ServiceHandler(PanelHandler):
    """`GET service`: the URL of the service, and the user of the token."""

    @answering
    async def get(self) -> None:
        """Answer with `{url, user}`."""
        url = self.service.url
        self.finish({"url": url, "user": await self.service.ask("GET", "/user/info")})


class CollectionHandler(PanelHandler):
    """`GET packagings|integrations|connections?page=`: a page of the list."""

    @answering
    async def get(self, collection: str) -> None:
        """Answer with `{items, more}`."""
        page = self.get_query_argument("page", "0")
        items = await self.service.ask("GET", _PATHS[collection], params={"page": page, "size": _PAGE})
        self.finish({"items": items or [], "more": len(items or []) == int(_PAGE)})


class EntityHandler(PanelHandler):
    """`GET` and `DELETE packagings|integrations|connections/ID`."""

    @answering
    async def get(self, collection: str, entity_id: str) -> None:
        """Answer with the entity, with its secrets masked by the API."""
        self.finish(await self.service.ask("GET", f"{_PATHS[collection]}/{entity_id}"))

    @answering
    async def delete(self, collection: str, entity_id: str) -> None:
        """Delete the entity; the API stops a running build."""
        self.finish(await self.service.ask("DELETE", f"{_PATHS[collection]}/{entity_id}") or {"message": "deleted"})


class LogHandler(PanelHandler):
    """`GET packagings/ID/log?follow=`: the log as plain text, live."""

    @answering
    async def get(self, entity_id: str) -> None:
        """Stream the log until the packaging ends or the client disconnects."""
        follow = self.get_query_argument("follow", "true") == "true"
        begun = False
        stream = self.service.log(f"{_PATHS['packagings']}/{entity_id}/log", follow=follow)
        try:
            async for chunk in stream:
                if not begun:
                    self._begin()
                    begun = True
                self.write(chunk)
                await self.flush()
        except iostream.StreamClosedError:
            return  # the client has disconnected
        except ServiceError as error:
            if not begun:
                raise
            self.write(f"\n[{error.message}]\n")
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        if not begun:
            self._begin()
        self.finish()

    def _begin(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")  # disables buffering in proxies


class SubmitHandler(PanelHandler):
    """`POST submit` with `{text}`: creates or edits the entities of a YAML file."""

    @answering
    async def post(self) -> None:
        """Answer with `{outcomes}`, one for each document."""
        body = self.get_json_body()
        if not isinstance(body, dict) or not isinstance(body.get("text"), str):
            raise RequestError('the body is not {"text": "..."}')
        outcomes = await submit(self.service, body["text"])
        self.finish({"outcomes": [outcome.as_json() for outcome in outcomes]})


class TemplatesHandler(PanelHandler):
    """`GET templates`: templates of documents."""

    @answering
    async def get(self) -> None:
        """Answer with `{templates}`: for the service's integrations, else for docker-rest and docker-cli."""
        try:
            integrations = await self.service.ask("GET", _PATHS["integrations"], params={"size": "100"})
        except ServiceError as error:
            log.warning("using the templates of docker-rest and docker-cli: %s", error.message)
            integrations = []
        own = [
            integration_document(integration_type, f"packager:{__version__}")
            for integration_type in INTEGRATION_TYPES.values()
        ]
        templates = document_templates(integrations or own, own)
        self.finish({"templates": [asdict(template) for template in templates]})


def routes(base_url: str, service: Service) -> list[tuple[str, type[PanelHandler], dict[str, Any]]]:
    """Return the routes below the base URL of a Jupyter server."""
    handlers: dict[str, type[PanelHandler]] = {
        "service": ServiceHandler,
        "submit": SubmitHandler,
        "templates": TemplatesHandler,
        _COLLECTION: CollectionHandler,
        f"{_COLLECTION}/{_ID}": EntityHandler,
        f"packagings/{_ID}/log": LogHandler,
    }
    return [
        (url_path_join(base_url, "packager", path), handler, {"service": service}) for path, handler in handlers.items()
    ]
