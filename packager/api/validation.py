"""Validation of entities before they are stored: fills in defaults and reports all problems at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from packager.api.arguments import check_arguments, check_schema, schema_of
from packager.api.entities import CONNECTION_TYPES
from packager.errors import RequestError
from packager.kube.names import check_id
from packager.kube.resolve import ANY_MODEL
from packager.models.connection import MASK, REGISTRY_TYPES, SECRET_FIELDS, Connection
from packager.models.documents import decode_secrets, describe
from packager.models.packaging import ModelPackaging, PackagingManifest, Target, TargetName
from packager.models.resources import Resources
from packager.registry.credentials import docker_credential
from packager.request import Overrides, check_registry_uri, find_integration_type, make_request
from packager.sources.stores.location import HOLDER_SCHEMES, check_zip_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packager.api.entities import NewConnection, NewIntegration, NewPackaging
    from packager.models.packaging import PackagingIntegration, PackagingSpec, TargetSchema

_ANY_OUTPUT = "oci-archive:none"  # an output that needs no push target


@dataclass(frozen=True, kw_only=True)
class ValidationContext:
    """The entities that a packaging is validated against.

    Attributes:
        integration: The integration that it names; None if there is no such integration.
        connections: The existing connections that it may name, by ID.
        output_connection: The server's default.
        has_models_dir: Whether models are found without an output connection.
    """

    integration: PackagingIntegration | None
    connections: Mapping[str, Connection] = field(default_factory=dict)
    output_connection: str = ""
    has_models_dir: bool = False


def connection_ids(spec: PackagingSpec, integration: PackagingIntegration | None, output_connection: str) -> set[str]:
    """Return all connections that a packaging names, and the defaults that apply to it."""
    schemas = integration.spec.integration_schema.targets if integration else ()
    named = {target.connection_name for target in spec.targets} | {schema.default for schema in schemas}
    return (named | {spec.output_connection or output_connection}) - {""}


def complete_packaging(new: NewPackaging, context: ValidationContext) -> NewPackaging:
    """Validate a packaging and return it with its defaults filled in.

    Raises:
        RequestError: The packaging is invalid; lists every problem.
    """
    problems = _id_problems(new.id, "packaging")
    spec, integration = new.spec, context.integration
    if problem := check_zip_name(spec.artifact_name):
        problems.append(f"artifactName {problem}")
    if not spec.integration_name:
        problems.append("integrationName is empty or missing")
    elif integration is None:
        problems.append(f'integrationName: entity "{spec.integration_name}" is not found')
    resources = spec.resources or Resources()
    problems += resources.problems()
    changes: dict[str, Any] = {"resources": resources.normalized()}
    changes["output_connection"] = _complete_output(spec, context, problems)
    if integration is not None:
        target_problems: list[str] = []
        changes["targets"] = _complete_targets(spec.targets, integration, context.connections, target_problems)
        given = {name: value for name, value in spec.arguments.items() if value is not None}
        changes["arguments"] = {**integration.defaults(), **given}
        changes["image"] = spec.image or integration.spec.default_image
        invalid = check_arguments(schema_of(integration.spec.integration_schema.arguments), changes["arguments"])
        problems += [problem for found in invalid.values() for problem in found] + target_problems
        spec = spec.model_copy(update=changes)
        valid = {name: value for name, value in spec.arguments.items() if name not in invalid}
        checked = spec.model_copy(update={"arguments": valid, **({"targets": ()} if target_problems else {})})
        problems += _request_problems(checked, context, ignore_targets=bool(target_problems))
    if problems:
        raise RequestError.from_problems(f'packaging "{new.id}" is invalid', problems)
    return new.model_copy(update={"spec": spec})


def _id_problems(entity_id: str, kind: str) -> list[str]:
    try:
        check_id(entity_id, kind)
    except RequestError as error:
        return [f"id: {error.message}" if not entity_id else f"id: {error.message}: {error.hint}"]
    return []


def _complete_output(spec: PackagingSpec, context: ValidationContext, problems: list[str]) -> str:
    name = spec.output_connection or context.output_connection
    connection = context.connections.get(name)
    if not name and not context.has_models_dir:
        problems.append("outputConnection is missing: name the connection of the store that holds the archive")
    elif name and connection is None:
        problems.append(f'outputConnection: entity "{name}" is not found')
    elif connection and connection.spec.type not in HOLDER_SCHEMES:
        kind = connection.spec.type
        problems.append(f"outputConnection {name!r} is of type {kind!r}; allowed: {', '.join(HOLDER_SCHEMES)}")
    return name


def _complete_targets(
    given: Iterable[TargetName],
    integration: PackagingIntegration,
    connections: Mapping[str, Connection],
    problems: list[str],
) -> tuple[TargetName, ...]:
    """Return the targets with the integration's default connections; appends to the problems."""
    schemas = {schema.name: schema for schema in integration.spec.integration_schema.targets}
    targets: dict[str, TargetName] = {}
    for target in given:
        if target.name not in schemas:
            problems.append(f"target {target.name!r} is unknown; known: {', '.join(sorted(schemas)) or 'none'}")
        elif target.name in targets:
            problems.append(f"target {target.name!r} is given twice")
        else:
            named = target.connection_name or schemas[target.name].default
            targets[target.name] = target.model_copy(update={"connection_name": named})
    for name, schema in schemas.items():
        if name not in targets and schema.default:
            targets[name] = TargetName(name=name, connection_name=schema.default)
        elif name not in targets and schema.required:
            problems.append(f"target {name!r} is required")
    for target in targets.values():
        problems += _target_problems(target, schemas[target.name], connections)
    return tuple(targets.values())


def _target_problems(target: TargetName, schema: TargetSchema, connections: Mapping[str, Connection]) -> list[str]:
    if not target.connection_name:
        return [f"target {target.name!r} names no connection"]
    connection = connections.get(target.connection_name)
    if connection is None:
        return [f'target {target.name!r}: entity "{target.connection_name}" is not found']
    allowed = schema.connection_types
    if allowed and connection.spec.type not in allowed:
        kind = f"connection {connection.id!r} is of type {connection.spec.type!r}"
        return [f"target {target.name!r}: {kind}; allowed: {', '.join(allowed)}"]
    return []


def _request_problems(spec: PackagingSpec, context: ValidationContext, *, ignore_targets: bool) -> list[str]:
    """Return what the packager itself would refuse, such as the image name; other integrations are not checked."""
    manifest = PackagingManifest(
        model_packaging=ModelPackaging(spec=spec),
        packaging_integration=context.integration,
        targets=tuple(
            Target(name=each.name, connection=context.connections[each.connection_name]) for each in spec.targets
        ),
    )
    try:
        find_integration_type(manifest)
    except RequestError:
        return []
    try:
        make_request(manifest, ANY_MODEL, Overrides(output=_ANY_OUTPUT) if ignore_targets else None)
    except RequestError as error:
        return list(error.problems)
    return []


def read_connection(new: NewConnection, *, keep_mask: bool) -> Connection:
    """Validate a connection and return it with its secrets in clear.

    `keep_mask` allows the mask instead of a secret, for a caller who has the secret.

    Raises:
        RequestError: The connection is invalid; lists every problem, and no secret.
    """
    problems = _id_problems(new.id, "connection")
    spec = new.spec
    if spec.type not in CONNECTION_TYPES:
        problems.append(f"type {spec.type[:40]!r} is unknown; known: {', '.join(CONNECTION_TYPES)}")
    elif spec.type in REGISTRY_TYPES:
        problems += check_registry_uri(spec.uri)
    elif not spec.uri:
        problems.append("uri is empty or missing")
    elif _has_password(spec.uri):
        problems.append("uri contains a password, but every user sees it; move the password to `password`")
    document = new.model_dump(by_alias=True)
    if not keep_mask:
        masked = [name for name, value in document["spec"].items() if value == MASK and name in SECRET_FIELDS]
        problems += [f"{name} is {MASK}, the mask of a hidden secret; give the secret" for name in masked]
        document["spec"].update(dict.fromkeys(masked, ""))
    connection = None
    try:
        connection = Connection.model_validate(decode_secrets(document, "connection", keep_mask=keep_mask))
        if connection.spec.type == "docker":
            docker_credential(connection)
    except RequestError as error:
        problems += error.problems or (error.message,)
    except ValidationError as error:
        problems += describe(error)
    if problems or connection is None:
        raise RequestError.from_problems(f'connection "{new.id}" is invalid', problems)
    return connection


def check_integration(new: NewIntegration) -> NewIntegration:
    """Validate an integration and return it.

    Raises:
        RequestError: The integration is invalid; lists every problem.
    """
    problems = _id_problems(new.id, "integration")
    spec, schema = new.spec, new.spec.integration_schema
    texts = {"entrypoint": spec.entrypoint, "defaultImage": spec.default_image}
    problems += [f"{name} is empty" for name, value in texts.items() if not value.strip()]
    problems += _duplicates("target", (target.name for target in schema.targets))
    for target in schema.targets:
        unknown = sorted(set(target.connection_types) - set(CONNECTION_TYPES))
        problems += [f"target {target.name!r}: the connection type {name!r} is unknown" for name in unknown]
    problems += _duplicates("argument", (argument.name for argument in schema.arguments.properties))
    names = {argument.name for argument in schema.arguments.properties}
    problems += [f"required argument {name!r} is unknown" for name in schema.arguments.required if name not in names]
    arguments_schema = schema_of(schema.arguments)
    is_valid = True
    for argument in schema.arguments.properties:
        problems += _duplicates(f"argument {argument.name!r}: parameter", (each.name for each in argument.parameters))
        if problem := check_schema(arguments_schema["properties"][argument.name]):
            problems.append(f"argument {argument.name!r}: its parameters are not a valid JSON Schema: {problem}")
            is_valid = False
    if is_valid:
        invalid = check_arguments({**arguments_schema, "required": []}, new.defaults())
        problems += [f"the default of {problem}" for found in invalid.values() for problem in found]
    if problems:
        raise RequestError.from_problems(f'integration "{new.id}" is invalid', problems)
    return new


def _has_password(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).password)
    except ValueError:  # an invalid URL, such as http://[
        return False


def _duplicates(kind: str, names: Iterable[str]) -> list[str]:
    return [f"{kind} {name!r} is given twice" for name, count in Counter(names).items() if count > 1]
