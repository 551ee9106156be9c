"""The Dockerfile of a plan. Pure.

The syntax is that of docs.docker.com/reference/dockerfile, as far as both Buildah and Kaniko support it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from packager.errors import BuildError
from packager.image.plan import Layer, StoredLayer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from packager.image.plan import ImagePlan

_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_TOKEN = re.compile(r"[A-Za-z0-9_./:@+-]+")


def render(plan: ImagePlan) -> str:
    """Render the Dockerfile of a plan, for a context made by `packager.image.context`.

    Raises:
        BuildError: A value can't be written into a Dockerfile.
    """
    for stored in (step for step in plan.steps if isinstance(step, StoredLayer)):
        raise BuildError(f"a Dockerfile can't contain the finished layer {stored.name}", hint="use --engine oci")
    steps = [
        {"folder": layer_folder(position, step), "root": str(step.root), "uid": step.uid, "gid": step.gid}
        if isinstance(step, Layer)
        else {"argv": step.argv}
        for position, step in enumerate(plan.steps)
        if not isinstance(step, StoredLayer)
    ]
    template = _environment().get_template("Dockerfile.j2")
    return template.render(base=base_name(plan), steps=steps, run_steps=plan.run_steps, config=plan.config)


def layer_folder(position: int, layer: Layer) -> str:
    """Return the context's folder for a layer's files."""
    return f"{position}-{layer.name}"


def base_name(plan: ImagePlan) -> str:
    """Return the image for FROM: by digest if known, else by tag."""
    base = plan.base
    return str(base.reference) if base.digest is None else base.reference.with_digest(base.digest)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("packager.image"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (no HTML: every value passes a filter below)
    )
    environment.filters.update({"quote": quote, "exec_form": exec_form, "token": token})
    return environment


def quote(value: str) -> str:
    r"""Quote a value of ENV or LABEL, escaping `"`, `\` and `$`, which would be expanded.

    Raises:
        BuildError: It contains a newline or another control character.
    """
    return '"' + re.sub(r'(["\\$])', r"\\\1", _one_line(value)) + '"'


def exec_form(values: Sequence[str]) -> str:
    """Return an array in exec form.

    Raises:
        BuildError: An argument contains a newline or another control character.
    """
    return json.dumps([_one_line(value) for value in values], ensure_ascii=False)


def token(value: str) -> str:
    """Validate an unquoted word: a reference, a path or a name.

    Raises:
        BuildError: It contains a character that needs quoting.
    """
    if not _TOKEN.fullmatch(value):
        raise BuildError(
            f"{_one_line(value)!r} can't be written into a Dockerfile", hint="use letters, digits and ._/-"
        )
    return value


def _one_line(value: str) -> str:
    if _CONTROL.search(value):
        raise BuildError(
            f"{value!r} contains a newline or another control character, which Dockerfiles don't support",
            hint="change the model's name or version, or the argument with this value",
        )
    return value
