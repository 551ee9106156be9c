"""What is wrong with a text of entities, and on which of its lines."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from packager.api.entities import NewConnection, NewIntegration, NewPackaging
from packager.api.entity_checks import check_integration, read_connection
from packager.api.routes.common import read_json
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
_MOST_CHARACTERS = 200_000  # two seconds of work
_ARGUMENT = re.compile(r"(?:the default of )?(?:required )?argument '([^']*)'")
_FIELD = re.compile(r"([A-Za-z]\w*(?:\.\w+)*)\b")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong, and the line it stands on, from 1 on."""

    line: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document of the text that is an entity.

    Attributes:
        node: Its YAML, which knows the lines.
    """

    kind: str
    entity: Entity
    node: yaml.Node


def read(text: str) -> tuple[list[Document], list[Problem]]:
    """Return the entities of a text, and what is wrong with the others."""
    documents: list[Document] = []
    problems: list[Problem] = []
    if len(text) > _MOST_CHARACTERS:
        return [], [Problem(line=1, text=f"the text is longer than {_MOST_CHARACTERS} characters: submit it in parts")]
    try:
        loader = TreeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                _read_one(node, loader.construct_document(node), documents, problems)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problems.append(Problem(line=mark.line + 1 if mark else 1, text=f"this is no YAML: {_why(error)}"))
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
        problems.append(Problem(line=_line(node, ["kind"]), text=f"kind: is none of {', '.join(_KINDS)}"))
        return
    try:
        sound = read_json(json.dumps(value, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        problems.append(Problem(line=line, text=f"holds what JSON can't say: {error}"))
        return
    try:
        documents.append(Document(kind=kind, entity=_KINDS[kind].model_validate(sound), node=node))
    except ValidationError as error:
        for problem, text in zip(error.errors(include_input=False), describe(error), strict=True):
            problems.append(Problem(line=_line(node, list(problem["loc"])), text=text))


def check(service: Service, text: str) -> tuple[list[Document], list[Problem]]:
    """Return the entities of a text and all that is wrong with it, as it would be told when it is submitted.

    A packaging that stands behind a connection or an integration of the same text may need it, so what it names is
    looked up only when those before it are there.
    """
    documents, problems = read(text)
    before: set[str] = set()
    for document in documents:
        if not (document.kind == "ModelPackaging" and before - {"ModelPackaging"}):
            problems += problems_of(document, checker(service, document.entity))
        before.add(document.kind)
    return documents, sorted(problems, key=lambda problem: problem.line)


def checker(service: Service, entity: Entity) -> Callable[[], object]:
    """Return what refuses an entity that is wrong."""
    if isinstance(entity, NewPackaging):
        return lambda: service.complete(entity)
    if isinstance(entity, NewIntegration):
        return lambda: check_integration(entity)
    return lambda: read_connection(entity, keep_mask=bool(service.store.connections.find_all([entity.id])))


def problems_of(document: Document, attempt: Callable[[], object]) -> list[Problem]:
    """Return what an attempt with a document refuses, each with its line."""
    try:
        attempt()
    except RequestError as error:
        texts = error.problems or (error.message,)
        return [Problem(line=_line(document.node, _path(text)), text=text) for text in texts]
    return []


def _path(text: str) -> list[Any]:
    """Return where in an entity the words of a problem point to."""
    if found := _ARGUMENT.match(text):
        return ["spec", "arguments", found[1]]
    if " is no id of a " in text:
        return ["id"]
    if text.startswith(("target ", "the target ", "required target")):
        return ["spec", "targets"]
    first = found[1].split(".") if (found := _FIELD.match(text)) else []
    return first if first[:1] in (["spec"], ["id"]) else ["spec", *first]


def _line(node: yaml.Node, path: list[Any]) -> int:
    """Return the line of the last part of a path that is there."""
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
