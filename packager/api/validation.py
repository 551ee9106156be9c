"""What a packaging must be to be kept: its defaults filled in, and every problem told at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from packager.api.arguments import check_arguments, schema_of
from packager.api.entities import Resources
from packager.api.resources import complete_resources
from packager.api.targets import complete_targets
from packager.errors import RequestError
from packager.kube.names import check_id
from packager.kube.resolve import ANY_MODEL
from packager.models.packaging import ModelPackaging, PackagingManifest, Target
from packager.request import Overrides, find_integration_type, make_request
from packager.sources.stores.location import HOLDER_SCHEMES, check_zip_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from packager.api.entities import NewPackaging, PackagingSpec
    from packager.models.connection import Connection
    from packager.models.packaging import PackagingIntegration

_ASIDE = "oci-archive:none"  # an output that needs no push target


@dataclass(frozen=True, kw_only=True)
class ValidationContext:
    """What a packaging is checked against.

    Attributes:
        integration: The one that it names; None when there is none of that id.
        connections: All that it may name and that exist, by id.
        output_connection: The server's default.
        models_at_hand: Whether models may be found without an output connection.
    """

    integration: PackagingIntegration | None
    connections: Mapping[str, Connection] = field(default_factory=dict)
    output_connection: str = ""
    models_at_hand: bool = False


def check_entity_id(entity_id: str, what: str) -> list[str]:
    """Return what is wrong with an id."""
    try:
        check_id(entity_id, what)
    except RequestError as error:
        return [error.message if not entity_id else f"{error.message}: {error.hint}"]
    return []


def connection_ids(spec: PackagingSpec, integration: PackagingIntegration | None, output_connection: str) -> set[str]:
    """Return all connections that a packaging names, or that are filled in for it."""
    schemas = integration.spec.integration_schema.targets if integration else ()
    named = {target.connection_name for target in spec.targets} | {schema.default for schema in schemas}
    return (named | {spec.output_connection or output_connection}) - {""}


def complete_packaging(new: NewPackaging, world: ValidationContext) -> NewPackaging:
    """Return a packaging with its defaults filled in.

    Raises:
        RequestError: Lists every problem.
    """
    problems = check_entity_id(new.id, "packaging")
    spec, integration = new.spec, world.integration
    if problem := check_zip_name(spec.artifact_name):
        problems.append(f"artifactName {problem}")
    if not spec.integration_name:
        problems.append("integrationName is empty or missing")
    elif integration is None:
        problems.append(f'integrationName: entity "{spec.integration_name}" is not found')
    changes: dict[str, Any] = {"resources": complete_resources(spec.resources or Resources(), problems)}
    changes["output_connection"] = _complete_output(spec, world, problems)
    if integration is not None:
        wrong_targets: list[str] = []
        changes["targets"] = complete_targets(spec.targets, integration, world.connections, wrong_targets)
        own = {name: value for name, value in spec.arguments.items() if value is not None}
        changes["arguments"] = {**integration.defaults(), **own}
        changes["image"] = spec.image or integration.spec.default_image
        wrong = check_arguments(schema_of(integration.spec.integration_schema.arguments), changes["arguments"])
        problems += [problem for found in wrong.values() for problem in found] + wrong_targets
        complete = spec.model_copy(update=changes)
        sound = {name: value for name, value in complete.arguments.items() if name not in wrong}
        problems += _packager_problems(complete.model_copy(update={"arguments": sound}), world, bool(wrong_targets))
        spec = complete
    if problems:
        raise RequestError.from_problems(f'packaging "{new.id}" is wrong', problems)
    return new.model_copy(update={"spec": spec})


def _complete_output(spec: PackagingSpec, world: ValidationContext, problems: list[str]) -> str:
    name = spec.output_connection or world.output_connection
    connection = world.connections.get(name)
    if not name and not world.models_at_hand:
        problems.append("outputConnection is missing: nothing says where the model's archive is stored")
    elif name and connection is None:
        problems.append(f'outputConnection: entity "{name}" is not found')
    elif connection and connection.spec.type not in HOLDER_SCHEMES:
        kind = connection.spec.type
        problems.append(f"outputConnection {name!r} is of type {kind!r}; allowed: {', '.join(HOLDER_SCHEMES)}")
    return name


def _packager_problems(spec: PackagingSpec, world: ValidationContext, targets_wrong: bool) -> list[str]:  # noqa: FBT001
    """Return what the packager itself would refuse at its start, as the image's name; other integrations may be any."""
    targets = [] if targets_wrong else spec.targets
    manifest = PackagingManifest(
        model_packaging=ModelPackaging.model_validate({"spec": spec.model_dump(by_alias=True, exclude_none=True)}),
        packaging_integration=world.integration,
        targets=tuple(Target(name=each.name, connection=world.connections[each.connection_name]) for each in targets),
    )
    try:
        find_integration_type(manifest)
    except RequestError:
        return []
    try:
        make_request(manifest, ANY_MODEL, Overrides(output=_ASIDE) if targets_wrong else None)
    except RequestError as error:
        return list(error.problems)
    return []
