"""The plan of an image, independent of engines and without I/O.

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

# The earliest time in a zip, and so in a wheel; some tools reject files with earlier times.
LAYER_TIME = datetime(1980, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, kw_only=True)
class BaseFolder:
    """A folder of the base image with another owner than root or another mode than 0755, or a symbolic link.

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
    """The base image.

    Attributes:
        reference: The user's reference, with an explicit host.
        digest: `sha256:…` of the manifest, if known.
        glibc: `2.36`; None without glibc or if unknown.
        python: `3.11`, the version of its python3, or None.
        env: The environment of its config.
        user: The user of its config, empty for root.
        folders: Links and unusual folders near its root, for engines that add to folders without unpacking the base.
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
    """A file, a folder or bytes, with its destination.

    Attributes:
        source: A folder (its content goes below `destination`), a file, the bytes of a file, or a file in a zip.
        destination: The absolute path in the image.
        exclude: Paths below a source folder to leave out, relative to it.
        is_file: Whether a `source` path is a file; planning does no I/O.
    """

    source: Path | bytes | ZipMember
    destination: PurePosixPath
    exclude: frozenset[str] = frozenset()
    is_file: bool = False


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Files of one layer, owned by `uid:gid`.

    Modes are normalized: 0755 for folders and executable files, 0644 for other files; so every uid can read them, and
    nothing is writable by others or setuid.
    """

    name: str
    contents: tuple[Content, ...]
    uid: int = 0
    gid: int = 0

    @property
    def root(self) -> PurePosixPath:
        """The deepest folder of the image that contains the whole layer."""
        parents = [
            content.destination
            if isinstance(content.source, Path) and not content.is_file
            else content.destination.parent
            for content in self.contents
        ]
        return PurePosixPath(commonpath(parents))


@dataclass(frozen=True, kw_only=True)
class StoredLayer:
    """A layer of an earlier run in a registry; only the oci engine can use it.

    Attributes:
        name: The layer's name in the plan.
        descriptor: Its blob in the registry.
        diff_id: `sha256:…` of the uncompressed tar.
        repository: The blob's repository.
    """

    name: str
    descriptor: Descriptor
    diff_id: str
    repository: Reference


@dataclass(frozen=True, kw_only=True)
class RunStep:
    """A command that runs in the image during the build, as root, without a shell."""

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """The image's config: environment, command, port, labels and user.

    `user` is None to keep the base image's user. All pairs are in output order.
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
        base: The base image.
        steps: Layers and RUN steps, the lowest first.
        config: The image's config.
        timestamp: The time of every file and layer. It is independent of the model, so that the same environment gives
            the same layer in every image.
    """

    base: BaseImage
    steps: tuple[Layer | StoredLayer | RunStep, ...]
    config: ImageConfig
    timestamp: datetime = LAYER_TIME

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers to create."""
        return tuple(step for step in self.steps if isinstance(step, Layer))

    @property
    def run_steps(self) -> tuple[RunStep, ...]:
        """The RUN steps."""
        return tuple(step for step in self.steps if isinstance(step, RunStep))
