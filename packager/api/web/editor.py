"""The pages that change: an editor that submits YAML, and deleting."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Annotated, Any

import yaml
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from packager.api.entities import ModelPackaging, NewConnection, NewIntegration, NewPackaging
from packager.api.routes import connections, integrations, packagings
from packager.api.routes.common import Page, service_of
from packager.api.web.rendering import render
from packager.api.web.session import PageRoute, form_of
from packager.api.web.yaml_validation import Document, Problem, check, problems_of
from packager.errors import EntityNotFoundError, RequestError
from packager.models.document_templates import document_templates
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document

router = APIRouter(include_in_schema=False, route_class=PageRoute)
Form = Annotated[dict[str, str], Depends(form_of)]


@dataclass(frozen=True, kw_only=True)
class _Shelf:
    """What is done with the entities of a kind, by the API's own functions, and so with their audit lines."""

    kind: str
    word: str
    page: str
    get: Any
    create: Any
    edit: Any
    delete: Any
    model: type[NewPackaging | NewIntegration | NewConnection]


@dataclass(frozen=True, kw_only=True)
class _Messages:
    """What stands beside the editor: what is wrong, what will be replaced, what was done before it went wrong."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


def _get_packaging(request: Request, packaging_id: str) -> ModelPackaging:
    return service_of(request).store.packagings.get(packaging_id)


_NONE = _Messages()
_CHECKING = CapacityLimiter(2)  # YAML is read by Python: more at once would only keep the other routes waiting
_SHELVES = (
    _Shelf(
        kind="ModelPackaging",
        word="packaging",
        page="/",
        get=_get_packaging,
        create=packagings.create_packaging,
        edit=packagings.edit_packaging,
        delete=packagings.delete_packaging,
        model=NewPackaging,
    ),
    _Shelf(
        kind="Connection",
        word="connection",
        page="/ui/connections",
        get=connections.get_connection,
        create=connections.create_connection,
        edit=connections.edit_connection,
        delete=connections.delete_connection,
        model=NewConnection,
    ),
    _Shelf(
        kind="PackagingIntegration",
        word="integration",
        page="/ui/integrations",
        get=integrations.get_integration,
        create=integrations.create_integration,
        edit=integrations.edit_integration,
        delete=integrations.delete_integration,
        model=NewIntegration,
    ),
)
_BY_KIND = {shelf.kind: shelf for shelf in _SHELVES}
_BY_WORD = {shelf.word: shelf for shelf in _SHELVES}


@router.get("/ui/new")
def show_editor(request: Request, template: str = "") -> Response:
    """Show the editor with a template, by default a packaging."""
    known = _templates(request)
    return _editor(request, known.get(template) or next(iter(known.values())), template=template)


@router.get("/ui/edit/{word}/{entity_id}")
def edit(request: Request, word: str, entity_id: str) -> Response:
    """Show the editor with an entity; a connection's secrets are masked, and those left masked stay as they are."""
    shelf = _shelf(word)
    entity = shelf.model.model_validate(shelf.get(request, entity_id).model_dump())
    told = entity.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
    text = yaml.safe_dump({"kind": shelf.kind, **told}, sort_keys=False, allow_unicode=True, width=100)
    return _editor(request, text)


@router.post("/ui/check")
async def check_text(request: Request, form: Form) -> Response:
    """Return what is wrong with a text: the part beside the editor. A few at a time, as callers ask at each pause."""
    return await to_thread.run_sync(_checked, request, form, limiter=_CHECKING)


def _checked(request: Request, form: dict[str, str]) -> Response:
    documents, problems = check(service_of(request), _text(form))
    messages = _Messages(problems=problems, notes=_notes(request, documents))
    return render(request, "messages", **asdict(messages))


@router.post("/ui/new")
def submit(request: Request, form: Form) -> Response:
    """Create or replace each entity of a text, in its order; nothing, when something of it is wrong."""
    text = _text(form)
    documents, problems = check(service_of(request), text)
    if problems:
        return _editor(request, text, HTTPStatus.BAD_REQUEST, messages=_Messages(problems=problems))
    done: list[str] = []
    for document in documents:
        problems = problems_of(document, lambda document=document: _apply(request, document))  # type: ignore[misc]
        if problems:
            return _editor(request, text, HTTPStatus.BAD_REQUEST, messages=_Messages(problems=problems, done=done))
        done.append(f"{_BY_KIND[document.kind].word} {document.entity.id}")
    last = documents[-1]
    target = f"/ui/packagings/{last.entity.id}" if last.kind == "ModelPackaging" else _BY_KIND[last.kind].page
    return RedirectResponse(target, HTTPStatus.SEE_OTHER)


@router.get("/ui/delete/{word}/{entity_id}")
def ask_to_delete(request: Request, word: str, entity_id: str) -> Response:
    """Ask whether to delete an entity."""
    shelf = _shelf(word)
    return render(request, "delete", shelf=shelf, entity=shelf.get(request, entity_id))


@router.post("/ui/delete/{word}/{entity_id}")
def delete(request: Request, word: str, entity_id: str) -> Response:
    """Delete an entity."""
    shelf = _shelf(word)
    shelf.delete(request, entity_id)
    return RedirectResponse(shelf.page, HTTPStatus.SEE_OTHER)


def _shelf(word: str) -> _Shelf:
    if word not in _BY_WORD:
        raise RequestError(f"there is no {word[:40]!r} to change")
    return _BY_WORD[word]


def _text(form: dict[str, str]) -> str:
    return form.get("text", "").replace("\r\n", "\n")


def _templates(request: Request) -> dict[str, str]:
    known = [each.model_dump(by_alias=True) for each in integrations.list_integrations(request, Page(size=100))]
    image = service_of(request).settings.packager_image
    own = [integration_document(integration_type, image) for integration_type in INTEGRATION_TYPES.values()]
    templates = document_templates(sorted(known, key=lambda each: str(each["id"])), own)
    return {template.name: template.text for template in templates}


def _apply(request: Request, document: Document) -> None:
    shelf = _BY_KIND[document.kind]
    try:
        shelf.edit(request, document.entity)  # first, as only who has the secrets may be told to keep them
    except EntityNotFoundError:
        shelf.create(request, document.entity)


def _notes(request: Request, documents: list[Document]) -> list[str]:
    """Say what a submission would replace."""
    store = service_of(request).store
    shelves = {"ModelPackaging": store.packagings, "Connection": store.connections}
    notes = []
    for document in documents:
        shelf: Any = shelves.get(document.kind, store.integrations)
        with suppress(EntityNotFoundError):
            shelf.get(document.entity.id)
            again = ", and run again" if document.kind == "ModelPackaging" else ""
            notes.append(f"The {_BY_KIND[document.kind].word} {document.entity.id} is there; it is replaced{again}.")
    return notes


def _editor(
    request: Request, text: str, status: HTTPStatus = HTTPStatus.OK, *, template: str = "", messages: _Messages = _NONE
) -> Response:
    return render(
        request, "editor", status, text=text, template=template, templates=list(_templates(request)), **asdict(messages)
    )
