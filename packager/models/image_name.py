"""The image's name: a template with the model's name and version, normalized for registries.

Templates come with packagings, from users that are not trusted to run code: they can only select, cut and join text.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_FILTERS = ("capitalize", "default", "first", "int", "last", "lower", "string", "title", "trim", "truncate", "upper")
_METHODS = (
    "capitalize",
    "endswith",
    "lower",
    "lstrip",
    "replace",
    "rstrip",
    "split",
    "startswith",
    "strip",
    "title",
    "upper",
)
# Without loops and variables, a template of limited length does limited work.
_STATEMENTS = (nodes.Template, nodes.Output, nodes.If)
_SHOWN_LENGTH = 80
_MAX_CHARACTERS = 4096  # of intermediate text; references are far shorter


class _NameSandbox(ImmutableSandboxedEnvironment):
    """A Jinja sandbox without access to other objects, loops, or operations that produce large text."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, finalize=_only_words)
        self.globals.clear()
        self.filters = {**{name: self.filters[name] for name in _FILTERS}, "replace": _replace}

    def call_binop(self, _context: object, operator: str, _left: object, _right: object) -> object:
        raise SecurityError(f"the operator {operator} is not allowed in an image name")

    def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  (Jinja's signature)
        text, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
        if not isinstance(text, str) or name not in _METHODS:
            raise SecurityError(f"the call of {name or 'this'!r} is not allowed in an image name")
        if name == "replace":
            return _replace(text, *args, **kwargs)
        return super().call(context, called, *args, **kwargs)


def _only_words(value: object) -> object:
    if not isinstance(value, (str, int, float, StrictUndefined)):
        raise SecurityError(f"{type(value).__name__} is not text")
    return value


def _replace(text: object, old: object, new: object, count: int = -1) -> str:
    before, search, put = str(text), str(old), str(new)
    if len(before) + (len(before) + 1) * len(put) > _MAX_CHARACTERS:
        raise SecurityError(f"a text grows beyond {_MAX_CHARACTERS} characters")
    return before.replace(search, put, count)


def render_image_name(template: str, values: Mapping[str, str]) -> str:
    """Render an image name and normalize it for registries: lower case, other characters replaced by `-`.

    `/` and `:` in the template separate path components and the tag; in values, such as branch names or times, they
    don't. Letters of other scripts are lost, with a warning.

    Returns:
        `path[:tag]`.

    Raises:
        ValueError: The template is invalid, uses an undefined name, or leaves the path, one of its components or the
            tag empty.
    """
    where = f"argument imageName: the template {template!r}"
    known = ", ".join(values)
    try:
        rendered = _render(template, {name: _without_separators(value) for name, value in values.items()})
    except SecurityError as error:
        raise ValueError(f"{where} is not allowed: {error}; it may use {known}") from error
    except UndefinedError as error:
        raise ValueError(f"{where} uses an unknown name: {error}; it may use {known}") from error
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise ValueError(f"{where} can't be rendered: {error}") from error
    try:
        name = normalise_image_name(rendered)
    except ValueError as error:
        raise ValueError(
            f"{where} renders to {_shown(rendered)}, which leaves no {error}: it needs letters a-z or digits; "
            "set imageName to one that has them, such as wine:1.0"
        ) from error
    if any(character.isalnum() and not character.isascii() for character in rendered.lower()):
        log.warning(
            "the image name %s has letters that a registry doesn't accept and becomes %s; two models may so get the "
            "same name: set the argument imageName to choose one of letters a-z and digits",
            _shown(rendered),
            _shown(name),
        )
    return name


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…")


def _without_separators(value: str) -> str:
    """Replace runs of other characters that contain `/` or `:`, which would separate components, by `-`."""
    return re.sub(r"[^A-Za-z0-9._-]+", lambda run: "-" if set(run.group()) & {"/", ":"} else run.group(), value)


def _render(template: str, values: Mapping[str, str]) -> str:
    sandbox = _NameSandbox()
    for statement in sandbox.parse(template).find_all(nodes.Stmt):
        if not isinstance(statement, _STATEMENTS):
            raise SecurityError(f"the statement {type(statement).__name__.lower()!r} is not allowed in an image name")
    return sandbox.from_string(template).render(values)


def normalise_image_name(text: str) -> str:
    """Convert a name to lower case, and replace each run of characters that are invalid in a reference by one `-`.

    Raises:
        ValueError: The path, one of its components or the tag is empty; its text names the part.
    """
    text = text.strip().lower()
    cut = text.rfind(":")
    path, colon, tag = (text[:cut], ":", text[cut + 1 :]) if cut > text.rfind("/") else (text, "", "")
    components = [(component, _normalise_component(component)) for component in path.split("/") if component.strip()]
    if not components or not any(made for _, made in components):
        raise ValueError("name")
    for component, made in components:
        if not made:
            raise ValueError(f"folder {_shown(component)} in its path")
    tag = re.sub(r"[^a-z0-9_.-]+", "-", tag).lstrip(".-")
    if colon and not tag:
        raise ValueError("tag")
    return "/".join(made for _, made in components) + colon + tag


def _normalise_component(text: str) -> str:
    def separator(match: re.Match[str]) -> str:
        run = match.group()
        return run if run in {".", "_", "__"} or set(run) == {"-"} else "-"

    return re.sub(r"[^a-z0-9]+", separator, text).strip("-._")
