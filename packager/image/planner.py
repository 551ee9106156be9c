"""The planner: from the request and the prepared inputs to the image's plan. Pure: no I/O, no processes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packager.errors import DependenciesError
from packager.image.plan import LAYER_TIME, BaseImage, Content, ImageConfig, ImagePlan, Layer, RunStep, StoredLayer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from packager.models.manifest import ArtifactManifest
    from packager.request import PackagingRequest
    from packager.sources.zip_member import ZipMember

HOME = PurePosixPath("/opt/odahu")
MODEL_FOLDER = HOME / "model"
RUNTIME_FOLDER = HOME / "runtime"
PACKAGES_FOLDER = HOME / "packages"
CONDA_FILE = HOME / "conda.yaml"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # for base images without a PATH
ENVIRONMENT_LAYER = "environment"
ENV_NAME_VARIABLE = "ODAHU_CONDA_ENV_NAME"
# Labels that identify an image's content: the digest of its environment's lock, the versions of packager and server.
LOCK_LABEL = "org.odahu.packager.environment"
VERSION_LABEL = "org.odahu.packager.version"
SERVER_LABEL = "org.odahu.packager.server"
LARGE_FILE = 32 << 20  # bytes; sending them takes longer than the requests for a layer of their own
MAX_MODEL_LAYERS = 48  # an image may have 127 (docker), fewer on some overlay file systems; the base needs some


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """The model's dependencies for the image.

    They are either installed in `root`, or a layer in a registry (`stored`), or the base image's own conda installs
    `conda_file`.

    Attributes:
        python: The interpreter in the image: an absolute path, or a name on the base image's PATH.
        python_version: `3.11`; empty if unknown before the build.
        root: The staging folder with the installed files, which go to `prefix`.
        stored: The layer with the installed files.
        prefix: The environment's folder in the image.
        packages: The folder to add to the path of the base image's `python`.
        variables: Environment variables of the conda file.
        lock: The exact packages, added to the environment as `packager.lock`.
        lock_digest: The lock's digest, for the label.
        conda_file: The text of the conda file for the base image's own conda.
    """

    python: str
    python_version: str = ""
    root: Path | None = None
    stored: StoredLayer | None = None
    prefix: PurePosixPath | None = None
    packages: PurePosixPath | None = None
    variables: tuple[tuple[str, str], ...] = ()
    lock: str = ""
    lock_digest: str = ""
    conda_file: str = ""


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """The inputs of a plan.

    Attributes:
        model: The unpacked archive.
        sizes: The bytes of the model's files, by their path in it.
        packed: Those of the model's files that are still in its zip.
        manifest: Its manifest.
        dependencies: The model's dependencies.
        runtime: The contents of the runtime layer.
        base: The base image.
        created: The time that the image's label names: the model's.
        timestamp: The time of every file and layer.
        packager_version: Our version.
        server: The name and version of what serves, for the label; empty for an image that doesn't.
    """

    model: Path
    manifest: ArtifactManifest
    dependencies: Dependencies
    runtime: tuple[Content, ...]
    base: BaseImage
    created: datetime
    packager_version: str
    timestamp: datetime = LAYER_TIME
    sizes: Mapping[str, int] = field(default_factory=dict)
    packed: Mapping[str, ZipMember] = field(default_factory=dict)
    server: str = ""


def base_conda(
    base: BaseImage, envs_location: PurePosixPath, conda_file: str, variables: tuple[tuple[str, str], ...] = ()
) -> Dependencies:
    """Return the dependencies for a base image with its own conda and an environment to update.

    Raises:
        DependenciesError: The base image doesn't name the environment.
    """
    name = dict(base.env).get(ENV_NAME_VARIABLE)
    if not name:
        raise DependenciesError(
            f"the base image {base.reference} has no environment variable {ENV_NAME_VARIABLE}, "
            "which names the conda environment to update",
            hint="set it in the base image, or set dockerfileAddCondaInstallation to true",
        )
    return Dependencies(python=str(envs_location / name / "bin" / "python"), conda_file=conda_file, variables=variables)


def make_plan(request: PackagingRequest, inputs: PlanInputs) -> ImagePlan:
    """Plan the image: base, environment, runtime, model, so that the least changing layers are the lowest."""
    dependencies, model = inputs.dependencies, inputs.manifest.model
    command = request.integration_type.command(request.arguments)
    runtime = Layer(name="runtime", contents=inputs.runtime)
    env = [
        *dependencies.variables,
        ("ODAHU_MODEL_NAME", model.name),
        ("ODAHU_MODEL_VERSION", model.version),
        ("MODEL_LOCATION", str(MODEL_FOLDER / model.work_dir)),
        ("MODEL_ENTRYPOINT", model.entrypoint),
        *command.variables,
    ]
    if dependencies.python.startswith("/"):
        # The environment's programs take precedence, as after `conda activate`.
        path = dict(inputs.base.env).get("PATH", DEFAULT_PATH)
        env.append(("PATH", f"{PurePosixPath(dependencies.python).parent}:{path}"))
    if dependencies.packages:
        env.append(("ODAHU_PACKAGES", str(dependencies.packages)))
    install = _install(dependencies)
    user = command.user
    if user is None and inputs.base.user and any(isinstance(step, RunStep) for step in install):
        user = inputs.base.user  # RUN steps need USER root, so the base's user is set again
    return ImagePlan(
        base=inputs.base,
        steps=(*install, runtime, *_model_layers(inputs)),
        config=ImageConfig(
            env=tuple(env),
            entrypoint=(dependencies.python, str(RUNTIME_FOLDER), *command.args),
            cmd=command.options,
            labels=_labels(inputs),
            exposed_port=command.port,
            user=user,
            working_dir=str(MODEL_FOLDER),
        ),
        timestamp=inputs.timestamp,
    )


def _model_layers(inputs: PlanInputs) -> tuple[Layer, ...]:
    """Return layers for the large files, and one above them with the other files, which change most often."""

    def content(path: str) -> Content:
        source = inputs.packed.get(path, inputs.model / path)
        return Content(source=source, destination=MODEL_FOLDER / path, is_file=True)

    groups = group_large_files(inputs.sizes)
    large = frozenset(path for group in groups for path in group)
    return (
        *(
            Layer(name=f"model-{number}", contents=tuple(content(path) for path in group))
            for number, group in enumerate(groups, start=1)
        ),
        Layer(
            name="model",
            contents=(
                Content(source=inputs.model, destination=MODEL_FOLDER, exclude=large - inputs.packed.keys()),
                *(content(path) for path in sorted(inputs.packed.keys() - large)),
            ),
        ),
    )


def group_large_files(sizes: Mapping[str, int]) -> list[list[str]]:
    """Group the paths of the large files, one group for each layer.

    Up to `MAX_MODEL_LAYERS` files each get their own group, in the order of their paths. More files are spread over
    that many groups by a hash of the path, so that a file's group doesn't depend on the other files, and a changed,
    added or removed file changes one layer.
    """
    large = sorted(path for path, size in sizes.items() if size >= LARGE_FILE)
    if len(large) <= MAX_MODEL_LAYERS:
        return [[path] for path in large]
    groups: dict[int, list[str]] = {}
    for path in large:
        number = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % MAX_MODEL_LAYERS
        groups.setdefault(number, []).append(path)
    return [groups[number] for number in sorted(groups)]


def _install(dependencies: Dependencies) -> tuple[Layer | StoredLayer | RunStep, ...]:
    if dependencies.stored is not None:
        return (dependencies.stored,)
    if dependencies.root is not None and dependencies.prefix is not None:
        files = Content(source=dependencies.root, destination=dependencies.prefix)
        lock = Content(source=dependencies.lock.encode(), destination=dependencies.prefix / "packager.lock")
        return (Layer(name=ENVIRONMENT_LAYER, contents=(files, lock)),)
    file = Content(source=dependencies.conda_file.encode(), destination=CONDA_FILE)
    # The base image's shell knows the path of conda and the environment's name.
    script = f'conda env update --name "${ENV_NAME_VARIABLE}" --file {CONDA_FILE}'
    return (
        Layer(name="dependencies", contents=(file,)),
        RunStep(name="conda env update", argv=("/bin/sh", "-c", script)),
    )


def _labels(inputs: PlanInputs) -> tuple[tuple[str, str], ...]:
    """OCI's annotation keys: github.com/opencontainers/image-spec/blob/main/annotations.md."""
    model, base = inputs.manifest.model, inputs.base
    labels = [
        ("org.opencontainers.image.title", model.name),
        ("org.opencontainers.image.version", model.version),
        ("org.opencontainers.image.created", inputs.created.strftime("%Y-%m-%dT%H:%M:%SZ")),
    ]
    if not base.reference.layout:  # a local path is not a name for others
        labels.append(("org.opencontainers.image.base.name", str(base.reference)))
    if base.digest:
        labels.append(("org.opencontainers.image.base.digest", base.digest))
    if inputs.dependencies.lock_digest:
        labels.append((LOCK_LABEL, inputs.dependencies.lock_digest))
    if inputs.server:
        labels.append((SERVER_LABEL, inputs.server))
    return (*labels, (VERSION_LABEL, inputs.packager_version))
