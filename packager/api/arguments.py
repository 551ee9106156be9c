"""Validation of arguments against the JSON Schema of an integration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import regex
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from packager.models.packaging import ArgumentsSchema

_NO_REFERENCES: Registry[Any] = Registry()  # never fetches the target of a `$ref`

_MATCH_SECONDS = 0.5
_BY_PATTERN = "patternProperties"


def _check_pattern(_validator: object, pattern: str, value: object, _schema: object) -> Iterator[ValidationError]:
    """Search for a pattern as JSON Schema does, with a time limit and without holding the GIL.

    A pattern such as `(a+)+$` takes years for forty characters.
    """
    if not isinstance(value, str):
        return
    try:
        found = regex.search(pattern, value, timeout=_MATCH_SECONDS, concurrent=True)
    except TimeoutError as error:
        raise TimeoutError(f"its schema's pattern {sanitize(pattern, limit=80)!r} takes too long to match") from error
    if not found:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator = extend(Draft202012Validator, {"pattern": _check_pattern})


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
    """Return the problems by argument."""
    problems: dict[str, list[str]] = {}
    for name in sorted(values.keys() - schema["properties"].keys()):
        known = ", ".join(sorted(schema["properties"])) or "none"
        problems[name] = [f"argument {name!r} is unknown; known: {known}"]
    for name in schema["required"]:
        if name not in values:
            problems[name] = [f"argument {name!r} is required"]
    for name, value in values.items():
        if name not in schema["properties"]:
            continue
        try:
            found = check_value(schema["properties"][name], value)
        except TimeoutError as error:
            problems[name] = [f"argument {name!r}: {error}"]
            break  # each further one could take as long
        if found:
            problems[name] = [f"argument {name!r}{where}: {what}" for where, what in found]
    return problems


def check_value(schema: dict[str, Any], value: object) -> list[tuple[str, str]]:
    """Return the problems of a value as (path, message).

    Raises:
        TimeoutError: A pattern of the schema takes too long; the text names it.
    """
    validator = _Validator(schema, registry=_NO_REFERENCES)
    try:
        return [(_where(error), sanitize(error.message, limit=80)) for error in validator.iter_errors(value)]
    except (Unresolvable, RecursionError):
        return [("", "its schema has a reference that is unresolvable or recursive")]
    except (re.error, regex.error):
        return [("", "its schema has an invalid regular expression")]


def check_schema(schema: dict[str, Any]) -> str:
    """Return why the parameters of an argument are not a valid JSON Schema, or an empty text."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"{_where(error)}: {sanitize(error.message, limit=80)}".removeprefix(": ").removeprefix(".")
    except (Unresolvable, RecursionError, re.error) as error:
        return sanitize(str(error), limit=80)
    return f"{_BY_PATTERN} is not supported" if _uses(schema, _BY_PATTERN) else ""


def _uses(schema: object, keyword: str) -> bool:
    if isinstance(schema, dict):
        return keyword in schema or any(_uses(value, keyword) for value in schema.values())
    return isinstance(schema, list) and any(_uses(value, keyword) for value in schema)


def _where(error: ValidationError | SchemaError) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
