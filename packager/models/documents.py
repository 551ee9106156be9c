"""Readers of documents: `mp.json` of the platform, and YAML files of users.

In `mp.json` secrets are plain text; in a `kind: Connection` document they are base64.
"""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from packager.errors import RequestError
from packager.models.connection import MASK, SECRET_FIELDS, Connection
from packager.models.packaging import ModelPackaging, PackagingIntegration, PackagingManifest, Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

KINDS: dict[str, type[BaseModel]] = {
    "ModelPackaging": ModelPackaging,
    "PackagingIntegration": PackagingIntegration,
    "Connection": Connection,
}
_MAX_BYTES = 4 << 20
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Documents:
    """All entities in a user's files, by ID."""

    packagings: dict[str, ModelPackaging] = field(default_factory=dict)
    integrations: dict[str, PackagingIntegration] = field(default_factory=dict)
    connections: dict[str, Connection] = field(default_factory=dict)

    def pick(self, packaging_id: str | None) -> PackagingManifest:
        """Resolve one packaging with its integration and connections, as the platform does.

        Raises:
            RequestError: No packaging has that ID, the choice is ambiguous, or a connection is not in the files.
        """
        packaging = self.pick_packaging(packaging_id)
        spec = packaging.spec
        integration = self.integrations.get(spec.integration_name)
        names = {target.name: target.connection_name for target in spec.targets}
        if integration is not None:
            for schema in integration.spec.integration_schema.targets:
                if schema.default:
                    names.setdefault(schema.name, schema.default)
        problems = [
            f"target {name!r} names the connection {connection!r}, which is in none of the files"
            for name, connection in names.items()
            if connection not in self.connections
        ]
        if problems:
            raise RequestError.from_problems(
                f"packaging {packaging.id!r}",
                problems,
                hint="give its `kind: Connection` document with another -f, or leave the target out and use --output",
            )
        targets = tuple(
            Target(name=name, connection=self.connections[connection]) for name, connection in names.items()
        )
        return PackagingManifest(model_packaging=packaging, packaging_integration=integration, targets=targets)

    def pick_packaging(self, packaging_id: str | None) -> ModelPackaging:
        """Return the packaging with that ID, or the only one.

        Raises:
            RequestError: No packaging has that ID, or the choice is ambiguous.
        """
        if packaging_id is not None:
            if packaging_id not in self.packagings:
                raise RequestError(
                    f"no ModelPackaging {packaging_id!r} in the files",
                    hint=f"they hold: {', '.join(sorted(self.packagings)) or 'no packaging at all'}",
                )
            return self.packagings[packaging_id]
        if len(self.packagings) > 1:
            raise RequestError(
                f"the files hold {len(self.packagings)} packagings",
                hint=f"pick one by --id: {', '.join(sorted(self.packagings))}",
            )
        return next(iter(self.packagings.values()), ModelPackaging())


def read_packaging_manifest(path: Path) -> PackagingManifest:
    """Read the platform's `mp.json`, JSON or YAML, secrets in clear.

    Raises:
        RequestError: The file can't be read, or its shape is wrong; lists every problem.
    """
    document = _parse(path, _read(path))
    if len(document) != 1 or not isinstance(document[0], dict):
        raise RequestError(
            f"{path}: holds no packaging manifest, which is one mapping with the key modelPackaging",
            hint="give the mp.json of the platform; for YAML documents use `packager build -f`",
        )
    return _validate(PackagingManifest, document[0], f"{path}")


def read_documents(paths: Iterable[Path], *, keep_mask: bool = False) -> Documents:
    """Read `kind: ModelPackaging | PackagingIntegration | Connection` documents from files and folders.

    In a folder, all `*.yaml`, `*.yml` and `*.json` files below it are read. A file may contain several documents. A
    document without `kind` whose spec names an integration is a packaging, as in the user's document. With `keep_mask`
    a secret may be the mask that hides it, for callers that have the secret.

    Raises:
        RequestError: A file can't be read, a document is invalid, or an ID occurs twice.
    """
    documents = Documents()
    entities: dict[str, dict[str, Any]] = {
        "ModelPackaging": documents.packagings,
        "PackagingIntegration": documents.integrations,
        "Connection": documents.connections,
    }
    for path in _files(paths):
        for number, document in enumerate(_parse(path, _read(path)), start=1):
            where = f"{path}, document {number}"
            if not isinstance(document, dict):
                raise RequestError(f"{where}: is not a mapping with kind, id and spec")
            kind = document.get("kind") or _guess_kind(document)
            if kind not in KINDS:
                raise RequestError(f"{where}: kind {kind!r} is unknown", hint=f"supported: {', '.join(KINDS)}")
            if kind == "Connection":
                document = decode_secrets(document, where, keep_mask=keep_mask)  # noqa: PLW2901  (the same document, readable)
            entity = _validate(KINDS[kind], document, where)
            known, entity_id = entities[kind], str(getattr(entity, "id", ""))
            if entity_id in known:
                raise RequestError(f"{where}: a {kind} {entity_id!r} was read before", hint="give each its own id")
            known[entity_id] = entity
    return documents


def _guess_kind(document: dict[str, Any]) -> str | None:
    spec = document.get("spec")
    return "ModelPackaging" if isinstance(spec, dict) and "integrationName" in spec else None


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix in {".yaml", ".yml", ".json"})
        else:
            yield path


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RequestError(f"{path}: is larger than {_MAX_BYTES >> 20} MB, so it is no packaging document")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{path}: can't be read: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: is not UTF-8 text", hint="give a JSON or YAML file") from error


def _parse(path: Path, text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        pass  # try YAML, which is not quite a superset of JSON
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or "it can't be parsed"
        raise RequestError(f"{path}{where}: neither JSON nor YAML: {what}") from error


def decode_secrets(document: dict[str, Any], where: str, *, keep_mask: bool) -> dict[str, Any]:
    """Return a `kind: Connection` document with decoded secrets; `keep_mask` allows the mask.

    Raises:
        RequestError: A secret is not base64.
    """
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return document
    decoded = dict(spec)
    problems = []
    for name in SECRET_FIELDS:
        if not spec.get(name) or (keep_mask and spec[name] == MASK):
            continue
        try:
            unwrapped = "".join(str(spec[name]).split())  # `base64` breaks its lines after 76 characters
            decoded[name] = base64.b64decode(unwrapped, validate=True).decode()
        except ValueError:  # not base64, not ASCII at all, or not UTF-8 inside
            problems.append(f"spec.{name} is not base64 text")
    if problems:
        raise RequestError.from_problems(
            where, problems, hint='secrets in a Connection document are base64: printf %s "$SECRET" | base64'
        )
    if str(decoded.get("password") or "").endswith("\n"):
        log.warning(
            "connection %r: its password ends with a line break, which is part of the password; "
            'to encode it without one: printf %%s "$SECRET" | base64',
            document.get("id"),
        )
    return {**document, "spec": decoded}


def describe(error: ValidationError) -> list[str]:
    """Return one line for each of pydantic's errors, without the values, which may be secret."""
    lines = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}: {what[:1].lower()}{what[1:]}" if where else what)
    return lines


def _validate(model: type[_Model], document: dict[str, Any], where: str) -> _Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise RequestError.from_problems(
            where, describe(error), hint=f"write it as {model.__name__} is described in the packagers' document"
        ) from error
