"""The manifest at the root of a trained model archive: `odahuflow.project.yaml` (GPPI)."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

MANIFEST_NAMES = ("odahuflow.project.yaml", "odahuflow.model.yaml")


def _stay_inside(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{text!r} leaves the archive; write a path relative to its root")
    return str(path)


InsidePath = Annotated[str, AfterValidator(_stay_inside)]


class Binaries(BaseModel):
    """What the model's code is and what it depends on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["python"]
    dependencies: Literal["conda", "pip"]
    conda_path: InsidePath | None = None
    requirements_path: InsidePath | None = None


class ModelSection(BaseModel):
    """The model's name and where its Python module lies.

    `workDir` goes on `sys.path`; `import <entrypoint>` gives the model's module.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    work_dir: InsidePath
    entrypoint: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")

    @field_validator("name", "version")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if any(ord(character) < ord(" ") for character in value):
            raise ValueError("must be one line without control characters")
        return value


class Toolchain(BaseModel):
    """What trained the model."""

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
