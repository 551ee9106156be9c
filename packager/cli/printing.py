"""How entities and documents are printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer
import yaml

from packager.cli.options import TextFormat
from packager.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Column = tuple[str, int, str]  # title, width, dotted path of the value


def checked_format(text: str) -> str:
    """Return a valid output format.

    Raises:
        UsageError: The format is unknown, or its JSONPath expression is invalid.
    """
    name, _, expression = text.partition("=")
    if name not in {"yaml", "json", "table", "jsonpath"} or (name == "jsonpath") != bool(expression):
        raise UsageError(f"unknown output format {text!r}", hint="write yaml, json, table or 'jsonpath=[*].id'")
    if expression:
        _parse(expression)
    return text


def print_entities(documents: Iterable[dict[str, Any]], output: str, columns: Sequence[Column]) -> None:
    """Print entities as the ODAHU client does: always as a list, and each as soon as it is known.

    jsonpath takes all of them at once. The format has passed `checked_format`.
    """
    name, _, expression = output.partition("=")
    if name == "jsonpath":
        values = [found.value for found in _parse(expression).find(list(documents))]
        one = values[0] if len(values) == 1 else values
        typer.echo(one if isinstance(one, str) else json.dumps(one))
    elif name == "table":
        _print_table(documents, columns)
    elif name == "json":
        _print_each(documents, lambda each: json.dumps(each, indent=2), begin="[", between=",", end="]")
    else:
        _print_each(documents, lambda each: yaml.safe_dump([each], sort_keys=False, width=120).rstrip(), empty="[]")


def _print_each(
    documents: Iterable[dict[str, Any]],
    text: Callable[[dict[str, Any]], str],
    *,
    begin: str = "",
    between: str = "",
    end: str = "",
    empty: str = "",
) -> None:
    first = True
    for document in documents:
        if first and begin:
            typer.echo(begin)
        elif between:
            typer.echo(between)
        typer.echo(text(document), nl=not between)
        first = False
    if first:
        typer.echo(f"{begin}{end}{empty}")
    elif end:
        typer.echo(f"\n{end}")


def _print_table(documents: Iterable[dict[str, Any]], columns: Sequence[Column]) -> None:
    typer.echo("  ".join(f"{title:<{width}}" for title, width, _ in columns).rstrip())
    for document in documents:
        cells = [f"{_cell(document, path):<{width}}" for _, width, path in columns]
        typer.echo("  ".join(cells).rstrip())


def _cell(document: dict[str, Any], path: str) -> str:
    value: Any = document
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else " ".join(str(value).split())


def _parse(expression: str) -> Any:  # noqa: ANN401  (the library's own type of expressions)
    from jsonpath_ng.parser import parse  # building its grammar is slow

    try:
        return parse(expression)
    except Exception as error:
        raise UsageError(
            f"{expression!r} is not a valid JSONPath: {error}",
            hint="for example 'jsonpath=[*].status.results[0].value'",
        ) from error


def print_documents(documents: list[Any], output: TextFormat) -> None:
    """Print documents as YAML; as JSON the only one, or a list of them."""
    if output is TextFormat.json:
        typer.echo(json.dumps(documents[0] if len(documents) == 1 else documents, indent=2))
    else:
        typer.echo(yaml.dump_all(documents, Dumper=_BlockDumper, sort_keys=False, width=120), nl=False)


class _BlockDumper(yaml.SafeDumper):
    """Writes multi-line text as a block scalar."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_BlockDumper.add_representer(str, _represent_text)
