"""The pages that change entities: the YAML editor and the deletion."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from typing import Annotated, Any

import yaml
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from packager.api.entities import NewConnection, NewIntegration, NewPackaging, StoredPackaging
from packager.api.routes import entities
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
class _Operations:
    """The operations on the entities of a kind: the API's own, so that they are audited."""

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
    """The messages beside the editor: problems, entities to be replaced, and entities done before a problem."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)


def _get_packaging(request: Request, packaging_id: str) -> StoredPackaging:
    return service_of(request).store.packagings.get(packaging_id)


_NONE = _Messages()
_CHECKS = CapacityLimiter(2)  # parsing YAML holds the GIL: more threads would only delay the other routes
_OPERATIONS = (
    _Operations(
        kind="ModelPackaging",
        word="packaging",
        page="/",
        get=_get_packaging,
        create=entities.create_packaging,
        edit=entities.edit_packaging,
        delete=entities.delete_packaging,
        model=NewPackaging,
    ),
    _Operations(
        kind="Connection",
        word="connection",
        page="/ui/connections",
        get=entities.get_connection,
        create=entities.create_connection,
        edit=entities.edit_connection,
        delete=entities.delete_connection,
        model=NewConnection,
    ),
    _Operations(
        kind="PackagingIntegration",
        word="integration",
        page="/ui/integrations",
        get=entities.get_integration,
        create=entities.create_integration,
        edit=entities.edit_integration,
        delete=entities.delete_integration,
        model=NewIntegration,
    ),
)
_BY_KIND = {each.kind: each for each in _OPERATIONS}
_BY_WORD = {each.word: each for each in _OPERATIONS}


@router.get("/ui/new")
def show_editor(request: Request, template: str = "") -> Response:
    """Show the editor with a template; by default with a packaging."""
    known = _templates(request)
    return _editor(request, known.get(template) or next(iter(known.values())), template=template)


@router.get("/ui/edit/{word}/{entity_id}")
def edit(request: Request, word: str, entity_id: str) -> Response:
    """Show the editor with an entity; secrets of connections are masked, and kept while the mask is unchanged."""
    operations = _operations(word)
    entity = operations.model.model_validate(operations.get(request, entity_id).model_dump())
    document = entity.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)
    text = yaml.safe_dump({"kind": operations.kind, **document}, sort_keys=False, allow_unicode=True, width=100)
    return _editor(request, text)


@router.post("/ui/check")
async def check_text(request: Request, form: Form) -> Response:
    """Return the messages about a text; the page asks after each pause in typing."""
    return await to_thread.run_sync(_checked, request, form, limiter=_CHECKS)


def _checked(request: Request, form: dict[str, str]) -> Response:
    documents, problems = check(service_of(request), _text(form))
    messages = _Messages(problems=problems, notes=_notes(request, documents))
    return render(request, "messages", **asdict(messages))


@router.post("/ui/new")
def submit(request: Request, form: Form) -> Response:
    """Create or replace each entity of a text, in order; none of them if the text has a problem."""
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
    """Ask for confirmation of a deletion."""
    operations = _operations(word)
    return render(request, "delete", operations=operations, entity=operations.get(request, entity_id))


@router.post("/ui/delete/{word}/{entity_id}")
def delete(request: Request, word: str, entity_id: str) -> Response:
    """Delete an entity."""
    operations = _operations(word)
    operations.delete(request, entity_id)
    return RedirectResponse(operations.page, HTTPStatus.SEE_OTHER)


def _operations(word: str) -> _Operations:
    if word not in _BY_WORD:
        raise RequestError(f"{word[:40]!r} is not a kind of entity; known: {', '.join(_BY_WORD)}")
    return _BY_WORD[word]


def _text(form: dict[str, str]) -> str:
    return form.get("text", "").replace("\r\n", "\n")


def _templates(request: Request) -> dict[str, str]:
    known = [each.model_dump(by_alias=True) for each in entities.list_integrations(request, Page(size=100))]
    image = service_of(request).settings.packager_image
    own = [integration_document(integration_type, image) for integration_type in INTEGRATION_TYPES.values()]
    templates = document_templates(sorted(known, key=lambda each: str(each["id"])), own)
    return {template.name: template.text for template in templates}


def _apply(request: Request, document: Document) -> None:
    operations = _BY_KIND[document.kind]
    try:
        operations.edit(request, document.entity)  # first: only an edit accepts masked secrets
    except EntityNotFoundError:
        operations.create(request, document.entity)


def _notes(request: Request, documents: list[Document]) -> list[str]:
    """Return notes about the entities that a submission would replace."""
    store = service_of(request).store
    repositories = {"ModelPackaging": store.packagings, "Connection": store.connections}
    notes = []
    for document in documents:
        repository: Any = repositories.get(document.kind, store.integrations)
        with suppress(EntityNotFoundError):
            repository.get(document.entity.id)
            again = " and run again" if document.kind == "ModelPackaging" else ""
            notes.append(f"The {_BY_KIND[document.kind].word} {document.entity.id} exists and will be replaced{again}.")
    return notes


def _editor(
    request: Request, text: str, status: HTTPStatus = HTTPStatus.OK, *, template: str = "", messages: _Messages = _NONE
) -> Response:
    return render(
        request, "editor", status, text=text, template=template, templates=list(_templates(request)), **asdict(messages)
    )
