"""The manifest at the root of a trained model archive: `odahuflow.project.yaml` (GPPI)."""

from __future__ import annotations

import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from packager.errors import ManifestError
from packager.logs.sanitize import sanitize
from packager.models.yaml_text import CONTROL, TextLoader, reason

if TYPE_CHECKING:
    from pydantic import ValidationInfo
    from pydantic_core import ErrorDetails

MANIFEST_NAMES = ("odahuflow.project.yaml", "odahuflow.model.yaml")
MAX_MANIFEST_SIZE = 1 << 20  # bytes; real manifests have a few hundred


# Our messages for pydantic's types of errors; others keep pydantic's message.
_SENTENCES = {
    "missing": "{where} is missing",
    "string_too_short": "{where} is empty",
    "too_short": "{where} is empty",
    "literal_error": "{where} is {given}, which is not supported; supported: {supported}",
    "string_pattern_mismatch": "{where} is {given}, which is not a Python module; write its dotted name without .py",
    "string_type": "{where} must be text, not {given}",
    "model_type": "{where} must be a mapping, not {given}",
    "model_attributes_type": "{where} must be a mapping, not {given}",
}


def _one_line(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("must be one line without control characters")
    return text


def _stay_inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{_shown(text)} leaves the archive; write a path relative to its root")
    return str(path)


Line = Annotated[str, AfterValidator(_one_line)]
InsidePath = Annotated[str, AfterValidator(_one_line), AfterValidator(_stay_inside)]


class Binaries(BaseModel):
    """The type of the model's code, and its dependencies.

    `conda_path` is set if `dependencies` is `conda`, `requirements_path` if it is `pip`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["python"]
    dependencies: Literal["conda", "pip"]
    conda_path: InsidePath | None = Field(default=None, validate_default=True)
    requirements_path: InsidePath | None = Field(default=None, validate_default=True)

    @field_validator("conda_path", "requirements_path")
    @classmethod
    def _named(cls, value: str | None, info: ValidationInfo) -> str | None:
        dependencies = {"conda_path": "conda", "requirements_path": "pip"}[str(info.field_name)]
        if value is None and info.data.get("dependencies") == dependencies:
            raise ValueError(f"is missing; with dependencies: {dependencies} it names their file in the archive")
        return value

    @property
    def dependencies_path(self) -> str:
        """The file that lists the dependencies, relative to the archive's root."""
        return str(self.conda_path if self.dependencies == "conda" else self.requirements_path)


class ModelSection(BaseModel):
    """The model's name and version, and the path of its Python module.

    `workDir` is added to `sys.path`; `import <entrypoint>` imports the model's module.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    name: Line = Field(min_length=1)
    version: Line = Field(min_length=1)
    work_dir: InsidePath
    entrypoint: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")


class Toolchain(BaseModel):
    """The toolchain that trained the model."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = ""
    version: str = ""


class ArtifactManifest(BaseModel):
    """The whole manifest. Unknown keys are ignored: the platform adds fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    binaries: Binaries
    model: ModelSection
    odahuflow_version: str = ""
    toolchain: Toolchain = Toolchain()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> ArtifactManifest:
        """Parse the manifest from YAML or JSON; `name` is its file name, for messages.

        It is UTF-8, or UTF-16 with a byte order mark, as written by Windows PowerShell, and has at most 1 MB. Numbers
        keep their text (`version: 1.10` is `"1.10"`), and null is the same as absent.

        Raises:
            ManifestError: It is invalid; the message lists all problems.
        """
        values = _parse(data, name)
        if not isinstance(values, dict):
            raise ManifestError(
                f"{name} is not a mapping",
                hint="it needs the sections `binaries` and `model`, as written by the training",
            )
        try:
            return cls.model_validate(_without_nulls(values))
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=True)
            raise manifest_error(name, [_describe(problem) for problem in problems]) from error


def manifest_error(name: str, problems: list[str], *, hint: str = "") -> ManifestError:
    """Return one error for all problems of a manifest, by default with a hint to correct it."""
    return ManifestError(
        "\n".join([f"{name} is invalid:", *(f"  - {problem}" for problem in problems)]),
        hint=hint
        or "correct the manifest in the archive, or train the model again with a toolchain that writes it correctly",
    )


def _parse(data: bytes, name: str) -> object:
    if len(data) > MAX_MANIFEST_SIZE:
        raise ManifestError(f"{name} is larger than {MAX_MANIFEST_SIZE:,} bytes", hint="check that it is the manifest")
    try:
        text = data.decode("utf-16" if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig")
        if text.lstrip().startswith("{"):
            try:
                return json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
            except json.JSONDecodeError:
                pass  # may be a YAML flow mapping
        return yaml.load(text, Loader=TextLoader)  # noqa: S506  (it is a SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ManifestError(
            f"{name} is neither YAML nor JSON: {reason(error)}", hint="correct it in the archive and pack it again"
        ) from error


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def _describe(problem: ErrorDetails) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    given = _shown(problem["input"]) if isinstance(problem["input"], str) else f"a {type(problem['input']).__name__}"
    supported = str(problem.get("ctx", {}).get("expected", "")).replace("'", "").replace(" or ", ", ")
    message = problem["msg"].removeprefix("Value error, ")
    sentence = _SENTENCES.get(problem["type"], "{where} {message}")
    return sentence.format(where=where, given=given, supported=supported, message=message)


def _shown(text: str) -> str:
    return repr(sanitize(text, limit=80))
