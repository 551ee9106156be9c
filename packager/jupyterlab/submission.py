"""Submission of a YAML file: creates its entities, or edits existing ones."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import yaml

from packager.errors import RequestError, ServiceError
from packager.models.yaml_text import TreeLoader

if TYPE_CHECKING:
    from packager.jupyterlab.service import Service

PATHS = {
    "ModelPackaging": "/model/packaging",
    "PackagingIntegration": "/packaging/integration",
    "Connection": "/connection",
}
MAX_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one document.

    Attributes:
        number: Its position in the file, from 1.
        done: `created`, `edited`, `refused`, or `not sent` for a document after a refused one.
        message: The reason of a refusal.
    """

    number: int
    kind: str
    id: str
    done: str
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the outcome for the panel."""
        return asdict(self)


def read_entities(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Read the documents of a file as (kind, entity); secrets stay base64, as the API expects them.

    Raises:
        RequestError: The file is too large or not YAML, or a document is not an entity; lists every problem.
    """
    if len(text) > MAX_BYTES:
        raise RequestError(f"the file is larger than {MAX_BYTES >> 20} MB", hint="submit it in parts")
    try:
        documents = [document for document in yaml.load_all(text, Loader=TreeLoader) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RequestError(f"{where}{getattr(error, 'problem', None) or 'invalid YAML'}") from error
    entities, problems = [], []
    for number, document in enumerate(documents, start=1):
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind not in PATHS:
            problems.append(f"document {number}: kind must be one of {', '.join(PATHS)}")
        elif not isinstance(document.get("id"), str) or not document["id"]:
            problems.append(f"document {number}: the {kind} has no id")
        else:
            entities.append((str(kind), {key: value for key, value in document.items() if key != "kind"}))
    if problems:
        raise RequestError.from_problems("cannot submit the file", problems)
    if not entities:
        raise RequestError(
            "the file contains no document", hint=f"write an entity of one of the kinds {', '.join(PATHS)}"
        )
    return entities


async def submit(service: Service, text: str) -> list[Outcome]:
    """Create or edit the entities of a file in order, until the first refusal.

    Raises:
        RequestError: The file is invalid; nothing was sent.
        ServiceError: The service is unreachable.
    """
    outcomes: list[Outcome] = []
    refused = False
    for number, (kind, entity) in enumerate(await asyncio.to_thread(read_entities, text), start=1):
        done, message = "not sent", ""
        if not refused:
            try:
                done = await _apply(service, PATHS[kind], entity)
            except ServiceError as error:
                refused, done, message = True, "refused", "\n".join(filter(None, (error.message, error.hint)))
        outcomes.append(Outcome(number=number, kind=kind, id=str(entity["id"]), done=done, message=message))
    return outcomes


async def _apply(service: Service, path: str, entity: dict[str, Any]) -> str:
    try:
        await service.ask("PUT", path, body=entity)  # first: only an edit accepts masked secrets
    except ServiceError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        await service.ask("POST", path, body=entity)
        return "created"
    return "edited"
