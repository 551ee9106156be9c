"""The arguments of a packaging, checked by the JSON Schema that its integration's parameters are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from packager.models.yaml_text import shortened

if TYPE_CHECKING:
    from packager.models.packaging import ArgumentsSchema

_NOWHERE: Registry[Any] = Registry()  # a `$ref` finds nothing outside its schema: nothing is ever fetched


def schema_of(arguments: ArgumentsSchema) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of an integration's arguments."""
    properties = {
        argument.name: {parameter.name: parameter.value for parameter in argument.parameters}
        for argument in arguments.properties
    }
    return {
        "type": "object",
        "properties": properties,
        "required": list(arguments.required),
        "additionalProperties": False,
    }


def check_arguments(schema: dict[str, Any], values: dict[str, Any]) -> dict[str, list[str]]:
    """Return what is wrong with arguments, by argument; the empty name stands for all of them."""
    problems: dict[str, list[str]] = {}
    for name in sorted(values.keys() - schema["properties"].keys()):
        known = ", ".join(sorted(schema["properties"])) or "none"
        problems[name] = [f"argument {name!r} is unknown; there is {known}"]
    for name in schema["required"]:
        if name not in values:
            problems[name] = [f"argument {name!r} is required"]
    for name, value in values.items():
        if name in schema["properties"] and (found := check_value(schema["properties"][name], value)):
            problems[name] = [f"argument {name!r}{where}: {what}" for where, what in found]
    return problems


def check_value(schema: dict[str, Any], value: object) -> list[tuple[str, str]]:
    """Return what is wrong with a value: where in it, and what."""
    validator = Draft202012Validator(schema, registry=_NOWHERE)
    try:
        return [(_where(error), shortened(error.message)) for error in validator.iter_errors(value)]
    except (Unresolvable, RecursionError):
        return [("", "its schema refers to what is nowhere, or to itself")]
    except re.error:
        return [("", "its schema has a pattern that is no regular expression")]


def check_schema(schema: dict[str, Any]) -> str:
    """Say why an argument's parameters are no JSON Schema; nothing, if they are one."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"{_where(error)}: {shortened(error.message)}".removeprefix(": ").removeprefix(".")
    except (Unresolvable, RecursionError, re.error) as error:
        return shortened(str(error))
    return ""


def _where(error: ValidationError | SchemaError) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
