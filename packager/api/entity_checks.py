"""What a connection and an integration must be to be kept; every problem is told at once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from packager.api.arguments import check_arguments, check_schema, schema_of
from packager.api.entities import CONNECTION_TYPES
from packager.api.store.entity_repository import as_integration
from packager.api.validation import check_entity_id
from packager.errors import RequestError
from packager.models.connection import MASK, REGISTRY_TYPES, SECRET_FIELDS, Connection
from packager.models.documents import decode_secrets, describe
from packager.registry.credentials import docker_credential
from packager.request import check_registry_uri

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packager.api.entities import NewConnection, NewIntegration


def read_connection(new: NewConnection, *, keep_mask: bool) -> Connection:
    """Return a connection with its secrets in clear; `keep_mask` lets a secret be the mask, for who has the secret.

    Raises:
        RequestError: Lists every problem, and no secret.
    """
    problems = check_entity_id(new.id, "connection")
    spec = new.spec
    if spec.type not in CONNECTION_TYPES:
        problems.append(f"type {spec.type[:40]!r} is unknown; there is {', '.join(CONNECTION_TYPES)}")
    elif spec.type in REGISTRY_TYPES:
        problems += check_registry_uri(spec.uri)
    elif not spec.uri:
        problems.append("uri is empty or missing")
    elif _has_password(spec.uri):
        problems.append("uri holds a password, and is shown to everyone; write it in `password`")
    document = new.model_dump(by_alias=True)
    if not keep_mask:
        masked = [name for name, value in document["spec"].items() if value == MASK and name in SECRET_FIELDS]
        problems += [f"{name} is {MASK}, which is shown in a secret's place" for name in masked]
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
        raise RequestError.from_problems(f'connection "{new.id}" is wrong', problems)
    return connection


def check_integration(new: NewIntegration) -> NewIntegration:
    """Return an integration that is right.

    Raises:
        RequestError: Lists every problem.
    """
    problems = check_entity_id(new.id, "integration")
    spec, schema = new.spec, new.spec.integration_schema
    texts = {"entrypoint": spec.entrypoint, "defaultImage": spec.default_image}
    problems += [f"{name} is empty" for name, value in texts.items() if not value.strip()]
    problems += _twice("target", (target.name for target in schema.targets))
    for target in schema.targets:
        unknown = sorted(set(target.connection_types) - set(CONNECTION_TYPES))
        problems += [f"target {target.name!r}: the connection type {name!r} is unknown" for name in unknown]
    problems += _twice("argument", (argument.name for argument in schema.arguments.properties))
    names = {argument.name for argument in schema.arguments.properties}
    problems += [f"required argument {name!r} is unknown" for name in schema.arguments.required if name not in names]
    integration = as_integration(new)
    own = schema_of(integration.spec.integration_schema.arguments)
    sound = True
    for argument in schema.arguments.properties:
        problems += _twice(f"argument {argument.name!r}: parameter", (each.name for each in argument.parameters))
        if problem := check_schema(own["properties"][argument.name]):
            problems.append(f"argument {argument.name!r}: its parameters are no JSON Schema: {problem}")
            sound = False
    if sound:
        wrong = check_arguments({**own, "required": []}, integration.defaults())
        problems += [f"the default of {problem}" for found in wrong.values() for problem in found]
    if problems:
        raise RequestError.from_problems(f'integration "{new.id}" is wrong', problems)
    return new


def _has_password(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).password)
    except ValueError:  # such as http://[ : no address of anything
        return False


def _twice(what: str, names: Iterable[str]) -> list[str]:
    return [f"{what} {name!r} is given twice" for name, count in Counter(names).items() if count > 1]
