"""Planning: from the request and what was prepared for it to the image's plan. Pure: reads no file, starts nothing."""

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
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where the base image sets none
ENVIRONMENT_LAYER = "environment"
ENV_NAME_VARIABLE = "ODAHU_CONDA_ENV_NAME"
# Read back by whoever asks what is in an image: the environment's exact packages as a digest, and our own version.
LOCK_LABEL = "org.odahu.packager.environment"
VERSION_LABEL = "org.odahu.packager.version"
SERVER_LABEL = "org.odahu.packager.server"
LARGE_FILE = 32 << 20  # bytes; sending them takes longer than the requests for a layer of their own
MAX_MODEL_LAYERS = 48  # an image may have 127 (docker), fewer on some overlay file systems; the base needs some


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """How the model's dependencies come into the image.

    Either `root` holds them, installed (`python` runs them), or they lie in a registry as a layer, or `conda_file` is
    applied by the base's own conda.

    Attributes:
        python: The interpreter in the image: an absolute path, or a name that the base has on its PATH.
        python_version: `3.11`, where it's known.
        root: The staging folder with the installed files, which go to `prefix`.
        stored: The layer with them.
        packages: The folder in the image that `python` must be told of, when it's the base's own.
        variables: Environment variables that the conda file asks for.
        lock: The exact packages, put beside them as `packager.lock`.
        lock_digest: The lock's digest, for the label.
        conda_file: The text of the conda file for a base that has its own conda.
        python_version: `3.11`; empty where only the image build will know.
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
class Prepared:
    """What lies ready for the image.

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
    """Return the dependencies for a base that brings its own conda and an environment to update.

    Raises:
        DependenciesError: The base image doesn't name that environment.
    """
    name = dict(base.env).get(ENV_NAME_VARIABLE)
    if not name:
        raise DependenciesError(
            f"the base image {base.reference} has no environment variable {ENV_NAME_VARIABLE}, "
            "which names the conda environment to update",
            hint="set it in the base image, or leave dockerfileAddCondaInstallation true",
        )
    return Dependencies(python=str(envs_location / name / "bin" / "python"), conda_file=conda_file, variables=variables)


def make_plan(request: PackagingRequest, prepared: Prepared) -> ImagePlan:
    """Say what the image is: base, then environment, runtime and model, so that what changes least lies lowest."""
    dependencies, model = prepared.dependencies, prepared.manifest.model
    command = request.integration_type.command(request.arguments)
    runtime = Layer(name="runtime", contents=prepared.runtime)
    env = [
        *dependencies.variables,
        ("ODAHU_MODEL_NAME", model.name),
        ("ODAHU_MODEL_VERSION", model.version),
        ("MODEL_LOCATION", str(MODEL_FOLDER / model.work_dir)),
        ("MODEL_ENTRYPOINT", model.entrypoint),
        *command.variables,
    ]
    if dependencies.python.startswith("/"):
        # The environment's programs are found first, as after `conda activate`.
        path = dict(prepared.base.env).get("PATH", DEFAULT_PATH)
        env.append(("PATH", f"{PurePosixPath(dependencies.python).parent}:{path}"))
    if dependencies.packages:
        env.append(("ODAHU_PACKAGES", str(dependencies.packages)))
    install = _install(dependencies)
    user = command.user
    if user is None and prepared.base.user and any(isinstance(step, RunStep) for step in install):
        user = prepared.base.user  # a RUN step made root of it, so it's said again
    return ImagePlan(
        base=prepared.base,
        steps=(*install, runtime, *_model_layers(prepared)),
        config=ImageConfig(
            env=tuple(env),
            entrypoint=(dependencies.python, str(RUNTIME_FOLDER), *command.args),
            cmd=command.options,
            labels=_labels(prepared),
            exposed_port=command.port,
            user=user,
            working_dir=str(MODEL_FOLDER),
        ),
        timestamp=prepared.timestamp,
    )


def _model_layers(prepared: Prepared) -> tuple[Layer, ...]:
    """Put large files into layers of their own, below the layer with the rest, which is the one that always changes."""

    def content(path: str) -> Content:
        source = prepared.packed.get(path, prepared.model / path)
        return Content(source=source, destination=MODEL_FOLDER / path, is_file=True)

    groups = group_large_files(prepared.sizes)
    large = frozenset(path for group in groups for path in group)
    return (
        *(
            Layer(name=f"model-{number}", contents=tuple(content(path) for path in group))
            for number, group in enumerate(groups, start=1)
        ),
        Layer(
            name="model",
            contents=(
                Content(source=prepared.model, destination=MODEL_FOLDER, exclude=large - prepared.packed.keys()),
                *(content(path) for path in sorted(prepared.packed.keys() - large)),
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
    # The base's shell knows where its conda is and what the environment is called.
    script = f'conda env update --name "${ENV_NAME_VARIABLE}" --file {CONDA_FILE}'
    return (
        Layer(name="dependencies", contents=(file,)),
        RunStep(name="conda env update", argv=("/bin/sh", "-c", script)),
    )


def _labels(prepared: Prepared) -> tuple[tuple[str, str], ...]:
    """OCI's annotation keys: github.com/opencontainers/image-spec/blob/main/annotations.md."""
    model, base = prepared.manifest.model, prepared.base
    labels = [
        ("org.opencontainers.image.title", model.name),
        ("org.opencontainers.image.version", model.version),
        ("org.opencontainers.image.created", prepared.created.strftime("%Y-%m-%dT%H:%M:%SZ")),
    ]
    if not base.reference.layout:  # the path of a file on this machine is no name
        labels.append(("org.opencontainers.image.base.name", str(base.reference)))
    if base.digest:
        labels.append(("org.opencontainers.image.base.digest", base.digest))
    if prepared.dependencies.lock_digest:
        labels.append((LOCK_LABEL, prepared.dependencies.lock_digest))
    if prepared.server:
        labels.append((SERVER_LABEL, prepared.server))
    return (*labels, (VERSION_LABEL, prepared.packager_version))
