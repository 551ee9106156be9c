"""Submitting a YAML file: its entities are created, or edited where they exist."""

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
MOST_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one document.

    Attributes:
        number: Its place in the file, from 1 on.
        done: `created`, `edited`, `refused`, or `not sent` for what comes after a refused one.
        message: Why it was refused.
    """

    number: int
    kind: str
    id: str
    done: str
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as it's sent to the panel."""
        return asdict(self)


def read_entities(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Read a file's documents as (kind, entity); secrets stay base64, as the API takes them.

    Raises:
        RequestError: It is no YAML, too large, or a document is no entity; lists every problem.
    """
    if len(text) > MOST_BYTES:
        raise RequestError(f"the file is larger than {MOST_BYTES >> 20} MB", hint="submit it in parts")
    try:
        documents = [document for document in yaml.load_all(text, Loader=TreeLoader) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RequestError(f"{where}{getattr(error, 'problem', None) or 'it is no YAML'}") from error
    entities, problems = [], []
    for number, document in enumerate(documents, start=1):
        kind = document.get("kind") if isinstance(document, dict) else None
        if kind not in PATHS:
            problems.append(f"document {number}: its kind is none of {', '.join(PATHS)}")
        elif not isinstance(document.get("id"), str) or not document["id"]:
            problems.append(f"document {number}: a {kind} without an id")
        else:
            entities.append((str(kind), {key: value for key, value in document.items() if key != "kind"}))
    if problems:
        raise RequestError.from_problems("the file can't be submitted", problems)
    if not entities:
        raise RequestError("the file holds no document", hint=f"write one of the kinds {', '.join(PATHS)}")
    return entities


async def submit(service: Service, text: str) -> list[Outcome]:
    """Create or edit every entity of a file, in its order; the first one that is refused ends it.

    Raises:
        RequestError: The file can't be read as entities; nothing was sent.
        ServiceError: The service can't be reached.
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
        await service.ask("PUT", path, body=entity)  # first, as masked secrets are kept only of what is there
    except ServiceError as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        await service.ask("POST", path, body=entity)
        return "created"
    return "edited"
