"""The targets of a packaging: which connection serves each, by the integration's schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.api.entities import TargetName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packager.models.connection import Connection
    from packager.models.packaging import PackagingIntegration, TargetSchema


def complete_targets(
    given: Iterable[TargetName],
    integration: PackagingIntegration,
    connections: Mapping[str, Connection],
    problems: list[str],
) -> list[TargetName]:
    """Return the targets with the integration's default connections filled in; adds what is wrong to the problems."""
    schemas = {schema.name: schema for schema in integration.spec.integration_schema.targets}
    targets: dict[str, TargetName] = {}
    for target in given:
        if target.name not in schemas:
            problems.append(f"target {target.name!r} is unknown; there is {', '.join(sorted(schemas)) or 'none'}")
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
        problems += _problems(target, schemas[target.name], connections)
    return list(targets.values())


def _problems(target: TargetName, schema: TargetSchema, connections: Mapping[str, Connection]) -> list[str]:
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
