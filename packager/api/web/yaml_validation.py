"""Validation of YAML text with entities: every problem with its line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from packager.api.entities import NewConnection, NewIntegration, NewPackaging
from packager.api.routes.common import read_json
from packager.api.validation import check_integration, read_connection
from packager.errors import RequestError
from packager.models.documents import describe
from packager.models.yaml_text import TreeLoader, reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from packager.api.service import Service

Entity = NewPackaging | NewIntegration | NewConnection
_KINDS: dict[str, type[Entity]] = {
    "ModelPackaging": NewPackaging,
    "PackagingIntegration": NewIntegration,
    "Connection": NewConnection,
}
_MAX_CHARACTERS = 200_000  # about two seconds of work
_ARGUMENT = re.compile(r"(?:the default of )?(?:required )?argument '([^']*)'")
_FIELD = re.compile(r"([A-Za-z]\w*(?:\.\w+)*)\b")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem and its line, counted from 1."""

    line: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """An entity of the text.

    Attributes:
        node: Its YAML node, which has the line numbers.
    """

    kind: str
    entity: Entity
    node: yaml.Node


def read(text: str) -> tuple[list[Document], list[Problem]]:
    """Return the entities of a text, and the problems of the other documents."""
    documents: list[Document] = []
    problems: list[Problem] = []
    if len(text) > _MAX_CHARACTERS:
        return [], [Problem(line=1, text=f"the text is longer than {_MAX_CHARACTERS} characters: submit it in parts")]
    try:
        loader = TreeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                _read_one(node, loader.construct_document(node), documents, problems)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problems.append(Problem(line=mark.line + 1 if mark else 1, text=f"invalid YAML: {_why(error)}"))
    if not documents and not problems:
        problems.append(Problem(line=1, text=f"write an entity of one of the kinds {', '.join(_KINDS)}"))
    return documents, problems


def _why(error: Exception) -> str:
    return reason(error).partition(": ")[2] if getattr(error, "problem_mark", None) else reason(error)


def _read_one(node: yaml.Node, value: object, documents: list[Document], problems: list[Problem]) -> None:
    line = node.start_mark.line + 1
    if value is None:
        return
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        problems.append(Problem(line=_line(node, ["kind"]), text=f"kind: must be one of {', '.join(_KINDS)}"))
        return
    try:
        plain = read_json(json.dumps(value, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        problems.append(Problem(line=line, text=f"contains a value that JSON does not support: {error}"))
        return
    try:
        documents.append(Document(kind=kind, entity=_KINDS[kind].model_validate(plain), node=node))
    except ValidationError as error:
        for problem, text in zip(error.errors(include_input=False), describe(error), strict=True):
            problems.append(Problem(line=_line(node, list(problem["loc"])), text=text))


def check(service: Service, text: str) -> tuple[list[Document], list[Problem]]:
    """Return the entities of a text and all problems that its submission would report.

    A packaging may need a connection or an integration that comes before it in the same text, so it is validated only
    if the text has none before it.
    """
    documents, problems = read(text)
    before: set[str] = set()
    for document in documents:
        if not (document.kind == "ModelPackaging" and before - {"ModelPackaging"}):
            problems += problems_of(document, checker(service, document.entity))
        before.add(document.kind)
    return documents, sorted(problems, key=lambda problem: problem.line)


def checker(service: Service, entity: Entity) -> Callable[[], object]:
    """Return a function that raises RequestError for an invalid entity."""
    if isinstance(entity, NewPackaging):
        return lambda: service.complete(entity)
    if isinstance(entity, NewIntegration):
        return lambda: check_integration(entity)
    return lambda: read_connection(entity, keep_mask=bool(service.store.connections.find_all([entity.id])))


def problems_of(document: Document, attempt: Callable[[], object]) -> list[Problem]:
    """Return the problems that an attempt with a document reports, with their lines."""
    try:
        attempt()
    except RequestError as error:
        texts = error.problems or (error.message,)
        return [Problem(line=_line(document.node, _path(text)), text=text) for text in texts]
    return []


def _path(text: str) -> list[Any]:
    """Return the path in the entity that the text of a problem refers to."""
    if found := _ARGUMENT.match(text):
        return ["spec", "arguments", found[1]]
    if text.startswith(("target ", "the target ", "required target")):
        return ["spec", "targets"]
    first = found[1].split(".") if (found := _FIELD.match(text)) else []
    return first if first[:1] in (["spec"], ["id"]) else ["spec", *first]


def _line(node: yaml.Node, path: list[Any]) -> int:
    """Return the line of the last existing part of a path."""
    line = node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if pair is None:
                return line
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
