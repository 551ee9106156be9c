"""The heart: what the image IS, without any I/O and without any engine.

A plan is a base image, ordered steps (layers of files, and RUN steps where there is no other way), and the image's
config. Planning the same inputs twice gives equal plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from posixpath import commonpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packager.models.image import Descriptor
    from packager.models.reference import Reference
    from packager.sources.zip_member import ZipMember

# The oldest time that a zip, and so a wheel, can hold; before it some tools refuse a file.
LAYER_TIME = datetime(1980, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, kw_only=True)
class BaseFolder:
    """A folder of the base image that isn't `root`'s with mode 0755, or a symbolic link.

    Attributes:
        path: Relative to the image's root.
        mode: A folder's permission bits.
        uid: A folder's owner.
        gid: A folder's group.
        target: A link's text; empty for a folder.
    """

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class BaseImage:
    """What is known of the image that we build on.

    Attributes:
        reference: As the user named it, with its host spelled out.
        digest: `sha256:…` of the manifest, where the registry or the storage told it.
        glibc: `2.36`, or None when the base has no glibc or can't be looked into.
        python: `3.11`, the base's own python3, or None.
        env: The environment of its config.
        user: The user of its config, empty for root.
        folders: What is known of its folders near the root, for engines that add to them without seeing them.
    """

    reference: Reference
    digest: str | None = None
    glibc: str | None = None
    python: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    folders: tuple[BaseFolder, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Content:
    """A file, a folder or some bytes, and where it goes.

    Attributes:
        source: A folder (its content goes below `destination`), a file, the bytes of a file, or a file in a zip.
        destination: The absolute path in the image; for a folder or a file alike.
        exclude: Paths below a source folder that stay out, relative to it.
        is_file: Whether a `source` path is a file; planning can't look.
    """

    source: Path | bytes | ZipMember
    destination: PurePosixPath
    exclude: frozenset[str] = frozenset()
    is_file: bool = False


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Files that become one layer, owned by `uid:gid`.

    Modes are normalised: 0755 for folders and for files that anyone may execute, 0644 for the rest; so every uid can
    read them, and nothing is writable by others or setuid.
    """

    name: str
    contents: tuple[Content, ...]
    uid: int = 0
    gid: int = 0

    @property
    def root(self) -> PurePosixPath:
        """The deepest folder of the image that holds all of the layer."""
        parents = [
            content.destination
            if isinstance(content.source, Path) and not content.is_file
            else content.destination.parent
            for content in self.contents
        ]
        return PurePosixPath(commonpath(parents))


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """A layer that was made in an earlier run and lies in a registry; only the oci engine can use it.

    Attributes:
        name: The plan's name for it.
        descriptor: The bytes as they lie there.
        diff_id: `sha256:…` of the tar.
        repository: The repository.
    """

    name: str
    descriptor: Descriptor
    diff_id: str
    repository: Reference


@dataclass(frozen=True, kw_only=True)
class RunStep:
    """A command that runs in the image during the build, as root, by exec and not through a shell."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """What the container runtime reads: environment, command, port, labels, user.

    `user` is None where the base image's own user is kept. All pairs are in the order they are written.
    """

    env: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    exposed_port: int | None = None
    user: str | None = None
    working_dir: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImagePlan:
    """The image: base, steps in order, config, and times.

    Attributes:
        base: What it's built on.
        steps: Layers and RUN steps, the lowest first.
        config: What the container runtime reads.
        timestamp: The time of every file and layer. It doesn't change with the model: the same environment is the same
            layer in every image.
    """

    base: BaseImage
    steps: tuple[Layer | StoredLayer | RunStep, ...]
    config: ImageConfig
    timestamp: datetime = LAYER_TIME

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The steps that are layers to be made."""
        return tuple(step for step in self.steps if isinstance(step, Layer))

    @property
    def run_steps(self) -> tuple[RunStep, ...]:
        """The steps that run a command."""
        return tuple(step for step in self.steps if isinstance(step, RunStep))
