"""The packaging request: the user's documents and options, merged with the defaults and validated."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import yaml
from pydantic import ValidationError

from packager.errors import RequestError
from packager.models.documents import describe
from packager.models.image_name import render_image_name
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.base import PULL, PUSH
from packager.models.reference import Destination, Reference

if TYPE_CHECKING:
    from packager.models.connection import Connection
    from packager.models.integrations import IntegrationType
    from packager.models.integrations.base import ImageArguments
    from packager.models.manifest import ModelSection
    from packager.models.packaging import PackagingManifest, TargetSchema

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PackagingRequest:
    """A validated packaging: the image to build and its destination.

    Attributes:
        integration_type: docker-rest or docker-cli.
        arguments: The arguments, including defaults.
        base: The base image.
        destination: The image's destination.
        push, pull: The connections of the registry targets, or None.
    """

    integration_type: IntegrationType
    arguments: ImageArguments
    base: Reference
    destination: Destination
    push: Connection | None = None
    pull: Connection | None = None


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Options of the command line that override the documents.

    Attributes:
        integration_type: The name of the integration type.
        arguments: Argument values.
        output: `docker://…`, `oci:…`, `oci-archive:…` or `docker-archive:…`; replaces the docker-push target.
    """

    integration_type: str | None = None
    arguments: dict[str, Any] | None = None
    output: str | None = None


def make_request(
    manifest: PackagingManifest, model: ModelSection, overrides: Overrides | None = None, *, uuid: str | None = None
) -> PackagingRequest:
    """Merge and validate documents and overrides.

    The precedence of argument values: command line, packaging, the integration's default, the documented default.
    `uuid` is the template's RandomUUID, by default a random one.

    Raises:
        RequestError: Something is invalid; the message lists all problems.
    """
    overrides = overrides or Overrides()
    integration_type = find_integration_type(manifest, overrides.integration_type)
    problems: list[str] = []
    values = _merge_arguments(manifest, integration_type, overrides.arguments or {}, problems)
    arguments = _check_arguments(integration_type, values, problems)
    connections = _check_targets(manifest, integration_type, push_required=overrides.output is None, problems=problems)
    template = values.get("imageName", integration_type.arguments.model_fields["image_name"].default)
    destination = None
    if isinstance(template, str):
        names = {"Name": model.name, "Version": model.version, "RandomUUID": uuid or str(uuid4())}
        destination = _find_destination(template, names, connections.get(PUSH), overrides.output, problems)
    if problems or arguments is None or destination is None:
        raise RequestError.from_problems(
            f"{manifest.subject} can't be built as {integration_type.name}",
            problems,
            hint=f"`packager integrations` describes the arguments and targets of {integration_type.name}",
        )
    return PackagingRequest(
        integration_type=integration_type,
        arguments=arguments,
        base=Reference.parse_base(arguments.dockerfile_base_image),
        destination=destination,
        push=connections.get(PUSH),
        pull=connections.get(PULL),
    )


def find_integration_type(manifest: PackagingManifest, name: str | None = None) -> IntegrationType:
    """Find the integration type by name, else by the packaging's integration, else by the integration's entry point.

    Raises:
        RequestError: No name is known, or the names conflict.
    """
    integration = manifest.packaging_integration
    wanted = name or manifest.model_packaging.spec.integration_name
    entry_point = integration.spec.entrypoint.rsplit("/", 1)[-1] if integration and not name else ""
    named = INTEGRATION_TYPES.get(wanted)
    started = next((each for each in INTEGRATION_TYPES.values() if each.entry_point == entry_point), None)
    if named and started and named is not started:
        raise RequestError(
            f"{manifest.subject} names the integration {wanted!r}, whose entry point is that of {started.name}",
            hint=f"name {started.name}, or give the integration the entry point {named.entry_point}",
        )
    integration_type = named or started
    if integration_type is None:
        what = f"the integration {wanted!r} is unknown" if wanted else "no integration is named (spec.integrationName)"
        raise RequestError(f"{manifest.subject}: {what}", hint=f"supported: {', '.join(INTEGRATION_TYPES)}")
    return integration_type


def parse_argument(integration_type: IntegrationType, text: str) -> tuple[str, Any]:
    """Parse `NAME=VALUE` of the command line; the value of a non-text argument is a YAML scalar.

    Raises:
        RequestError: `=` is missing, or the value is not a scalar.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RequestError(f"the argument {text!r} has no value", hint="write -a NAME=VALUE")
    fields = {field.alias or key: field for key, field in integration_type.arguments.model_fields.items()}
    if name not in fields or fields[name].annotation is str:
        return name, value
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RequestError(
            f"the value of the argument {text!r} can't be read", hint="write a number or true/false"
        ) from error


def _merge_arguments(
    manifest: PackagingManifest, integration_type: IntegrationType, given: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    """Merge arguments, treating null as absent; report unknown and missing ones."""
    known = {field.alias or name for name, field in integration_type.arguments.model_fields.items()}
    integration = manifest.packaging_integration
    defaults = integration.defaults() if integration else {}
    for name in sorted(defaults.keys() - known):
        log.warning("the integration's argument %r is unknown to %s and has no effect", name, integration_type.name)
    own = {**manifest.model_packaging.spec.arguments, **given}
    own = {name: value for name, value in own.items() if value is not None}
    values = {**defaults, **own}
    if integration:
        required = integration.spec.integration_schema.arguments.required
        problems += [f"argument {name!r} is required" for name in required if name not in values]
    unknown = sorted(own.keys() - known)
    problems += [
        f"argument {name!r} is unknown; {integration_type.name} has {', '.join(sorted(known))}" for name in unknown
    ]
    return {name: value for name, value in values.items() if name in known}


def _check_arguments(
    integration_type: IntegrationType, values: dict[str, Any], problems: list[str]
) -> ImageArguments | None:
    try:
        return integration_type.arguments.model_validate(values)
    except ValidationError as error:
        problems += [f"argument {line}" for line in describe(error)]
        return None


def _check_targets(
    manifest: PackagingManifest, integration_type: IntegrationType, *, push_required: bool, problems: list[str]
) -> dict[str, Connection]:
    schemas: dict[str, TargetSchema] = {schema.name: schema for schema in integration_type.targets}
    integration = manifest.packaging_integration
    if integration:
        schemas |= {schema.name: schema for schema in integration.spec.integration_schema.targets}
    documented = {schema.name for schema in integration_type.targets}
    connections: dict[str, Connection] = {}
    for target in manifest.targets:
        connection, schema = target.connection, schemas.get(target.name)
        if schema is None or target.name not in documented:
            problems.append(
                f"target {target.name!r} is unknown; {integration_type.name} has {', '.join(sorted(documented))}"
            )
            continue
        if target.name in connections:
            problems.append(f"target {target.name!r} is given twice")
        allowed = [name for name in _DOCUMENTED_TYPES if not schema.connection_types or name in schema.connection_types]
        if connection.spec.type not in allowed:
            problems.append(
                f"target {target.name!r}: connection {connection.id!r} is of type {connection.spec.type!r}; "
                f"allowed: {', '.join(allowed)}"
            )
        problems += [f"connection {connection.id!r}: {problem}" for problem in check_registry_uri(connection.spec.uri)]
        connections[target.name] = connection
    for name, schema in schemas.items():
        required = schema.required and (push_required or name != PUSH)
        if required and name not in connections:
            problems.append(f"target {name!r} is required: name a connection of type {' or '.join(_DOCUMENTED_TYPES)}")
    return connections


_DOCUMENTED_TYPES = ("docker", "ecr")


def check_registry_uri(uri: str) -> list[str]:
    """Return the problems of a registry connection's URI, which is `host[:port][/path]` without a scheme."""
    if not uri.strip("/"):
        return ["its uri is empty; write host/path"]
    if "://" in uri:
        return [f"its uri has the scheme {uri.partition('://')[0]!r}; write host/path without it"]
    if "@" in uri.partition("/")[0]:
        return ["its uri holds a user or a password; write them in `username` and `password`, and host/path here"]
    try:
        Reference.parse(f"{uri.rstrip('/')}/x")
    except ValueError as error:
        return [f"its uri is wrong: {error}"]
    return []


def _find_destination(
    template: str,
    values: dict[str, str],
    push: Connection | None,
    output: str | None,
    problems: list[str],
) -> Destination | None:
    try:
        name = render_image_name(template, values)
        if output is not None:
            return Destination.parse(output, Reference.parse(f"localhost/{name}"))
        if push is None or check_registry_uri(push.spec.uri):
            return None  # reported as a target's problem
        return Destination(reference=Reference.parse(f"{push.spec.uri.rstrip('/')}/{name}"))
    except ValueError as error:
        problems.append(str(error))
        return None
