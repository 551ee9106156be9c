"""YAML templates: a packaging of each integration, a connection of each type, an integration.

The texts are generated from PackagingIntegration entities in their external form (camelCase).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, kw_only=True)
class Template:
    """A template of a document.

    Attributes:
        name: The name in lists, and the stem of the file name.
        kind: The entity's kind.
        text: YAML of an entity with example names.
    """

    name: str
    kind: str
    text: str


_CONNECTIONS = {
    "docker": (
        "A container registry. Without username and password: anonymous access.",
        (
            ("uri", "registry.example.com/team", "host, optionally with a path; no https://"),
            ("username", "robot", ""),
            ("password", "", 'base64: printf %s "$PASSWORD" | base64'),
        ),
    ),
    "ecr": (
        "Amazon ECR. Without keys, AWS's default credential chain is used.",
        (
            ("uri", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team", "no https://"),
            ("region", "eu-central-1", ""),
            ("keyID", "", "base64"),
            ("keySecret", "", "base64"),
        ),
    ),
    "s3": (
        "Where trained models are stored.",
        (
            ("uri", "s3://bucket/prefix", ""),
            ("region", "eu-central-1", ""),
            ("keyID", "", "base64"),
            ("keySecret", "", "base64"),
        ),
    ),
    "gcs": (
        "Where trained models are stored.",
        (("uri", "gs://bucket/prefix", ""), ("keySecret", "", "base64 of the service account's JSON key")),
    ),
    "azureblob": (
        "Where trained models are stored.",
        (
            ("uri", "https://account.blob.core.windows.net/container", ""),
            ("keySecret", "", "base64 of the shared access signature or the account's key"),
        ),
    ),
}

_INTEGRATION = """\
# An integration that packagings can use in `integrationName`.
kind: PackagingIntegration
id: my-packager
spec:
  entrypoint: odahu-flow-pack-to-rest   # the program to start in the image
  defaultImage: registry.example.com/packager:1.0
  privileged: false
  schema:
    targets:
      - name: docker-push
        connectionTypes: [docker, ecr]
        required: true
    arguments:
      properties:
        - name: imageName
          parameters:   # the keywords of a JSON Schema
            - name: type
              value: string
            - name: default
              value: "{{ Name }}-{{ Version }}:{{ RandomUUID }}"
"""


def document_templates(
    integrations: Iterable[Mapping[str, Any]], own: Iterable[Mapping[str, Any]] = ()
) -> list[Template]:
    """Return templates of packagings for the given PackagingIntegration entities, connections, and integrations.

    `own` are complete integrations.
    """
    packagings = [
        Template(name=f"packaging-{entity['id']}", kind="ModelPackaging", text=_packaging(entity))
        for entity in integrations
    ]
    connections = [
        Template(name=f"connection-{type_}", kind="Connection", text=_connection(type_)) for type_ in _CONNECTIONS
    ]
    taken = [
        Template(
            name=f"integration-{entity['id']}",
            kind="PackagingIntegration",
            text=yaml.safe_dump(dict(entity), sort_keys=False, allow_unicode=True, width=110),
        )
        for entity in own
    ]
    other = Template(name="integration", kind="PackagingIntegration", text=_INTEGRATION)
    return [*packagings, *connections, *taken, other]


def _packaging(entity: Mapping[str, Any]) -> str:
    spec = entity.get("spec") or {}
    schema = spec.get("schema") or {}
    arguments = (schema.get("arguments") or {}).get("properties") or ()
    required = set((schema.get("arguments") or {}).get("required") or ())
    lines = [
        f"# Packages a trained model by the integration {entity['id']}.",
        "kind: ModelPackaging",
        f"id: my-model-{entity['id']}"[:66].rstrip("-") + "   # lower-case letters, digits and -, at most 63",
        "spec:",
        f"  integrationName: {_scalar(entity['id'])}",
        "  artifactName: my-model-1.0.zip   # the trained model's archive",
    ]
    if arguments:
        lines.append(
            "  arguments:" if required.intersection(str(each["name"]) for each in arguments) else "  # arguments:"
        )
    for argument in arguments:
        lines += _argument(argument, required)
    targets = schema.get("targets") or ()
    if targets:
        lines.append("  targets:" if any(target.get("required") for target in targets) else "  # targets:")
    for target in targets:
        indent = "    " if target.get("required") else "  #   "
        types = " or ".join(target.get("connectionTypes") or ())
        lines += [
            f"{indent}- name: {_scalar(target['name'])}" + (f"   # a connection of type {types}" if types else ""),
            f"{indent}  connectionName: {_scalar(target.get('default') or 'my-connection')}",
        ]
    lines += [
        "  # resources:",
        "  #   limits: {cpu: 2000m, memory: 2Gi}",
        "  #   requests: {cpu: 1000m, memory: 1Gi}",
    ]
    return "\n".join(lines) + "\n"


def _argument(argument: Mapping[str, Any], required: set[str]) -> Iterator[str]:
    """Yield the lines of an argument: a comment, or a line to fill in if it is required."""
    words = {parameter["name"]: parameter.get("value") for parameter in argument.get("parameters") or ()}
    name = str(argument["name"])
    if words.get("description"):
        yield f"  #   # {_line(str(words['description']))}"
    note = f"   # {_line(str(words['type']))}" if words.get("type") else ""
    value = json.dumps(words.get("default"), ensure_ascii=False)
    yield f"{'    ' if name in required else '  #   '}{_scalar(name)}: {value}{note}"


def _connection(type_: str) -> str:
    about, fields = _CONNECTIONS[type_]
    lines = [f"# {about}", "kind: Connection", f"id: my-{type_}", "spec:", f"  type: {type_}"]
    for name, value, note in fields:
        lines.append(f"  {name}: {_scalar(value)}" + (f"   # {note}" if note else ""))
    return "\n".join([*lines, '  description: ""', ""])


def _scalar(text: str) -> str:
    """Return a text as a YAML string, unquoted if that is unambiguous."""
    plain = text and text[0].isalpha() and all(letter.isalnum() or letter in "-./:_" for letter in text)
    words = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
    return text if plain and text.isascii() and text.lower() not in words and text[-1] != ":" else json.dumps(text)


def _line(text: str) -> str:
    return " ".join(text.split())
