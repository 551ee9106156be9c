"""Every error that a user of this program can meet, each with an exit code and a hint.

PackagerError                     1   something failed that has no class of its own
├── UsageError                    2   the command line or a setting is wrong
├── ArtifactError                10   the model archive can't be read, or is not safe to read
├── ManifestError                11   the archive's manifest is missing or wrong
├── RequestError                  12   the packaging, its arguments, targets or connections are wrong
├── StorageError                  14   the artifact store answered with an error
│   ├── StorageAuthError          15   ... it refused the credentials, or there are none
│   └── StorageUnreachableError   16   ... it can't be reached at all
├── DependenciesError             20   the model's conda or pip file is missing or wrong
│   ├── SolveError                21   no set of packages satisfies it
│   ├── ChannelError              22   a conda channel or package index can't be reached
│   └── InstallError              23   a package can't be fetched, built or linked
├── ModelCheckError              24   the model can't serve, or can't be checked where that was asked for
├── RegistryError                 30   the registry answered with an error
│   ├── RegistryAuthError         31   ... it refused the credentials
│   ├── RegistryUnreachableError  32   ... it can't be reached at all
│   └── ImageNotFoundError        33   ... it has no such base image
├── BuildError                    40   the engine failed
│   ├── BuildStepError            41   ... in a RUN step
│   ├── OutOfMemoryError          42   ... killed for its memory
│   └── ToolMissingError          43   ... its program is not installed
├── DiskFullError                 50   no space left where we write
├── ClusterError                 60   the Kubernetes cluster answered with an error
│   ├── ClusterAccessError       61   ... it doesn't know us, or doesn't allow it
│   ├── ClusterUnreachableError  62   ... it can't be reached, or none is configured
│   ├── EntityNotFoundError      63   ... it has no such packaging, connection or integration
│   ├── EntityExistsError        64   ... it has one of that id already
│   ├── PackagingFailedError     65   the packaging failed there, with no exit code of its own
│   └── WaitTimeoutError         66   the packaging has not ended in the time that was given
├── DatabaseError                70   the API service's database can't be reached, or refuses
├── ServiceError                 71   the API service refused something, or can't be reached (JupyterLab's panel)
└── Interrupted             130, 143   SIGINT, SIGTERM

Without an error of its own ends, with 141, what someone reads who goes before the end, as `head` does.
"""

from __future__ import annotations

import errno
from signal import Signals
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable


_SIGNALS = 128
READER_GONE = _SIGNALS + 13  # SIGPIPE, as the shell counts


class PackagerError(Exception):
    """An error that is shown to the user as `message` and `hint`, never as a traceback.

    Attributes:
        message: What failed and on what, in one sentence or a short list.
        hint: What to do next; empty when the message says it already.
        exit_code: The process's exit code.
        code: A stable word for machines, as in the termination log's `{"error": {"code": ...}}`.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the message and the hint."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def rewritten(self, rewrite: Callable[[str], str]) -> PackagerError:
        """Return an error of the same code whose message and hint went through `rewrite`."""
        error = PackagerError(rewrite(self.message), hint=rewrite(self.hint))
        error.code, error.exit_code = self.code, self.exit_code  # type: ignore[misc]
        return error


class UsageError(PackagerError):
    """The command line or a setting is wrong."""

    exit_code = 2
    code = "usage"


class ArtifactError(PackagerError):
    """The model archive can't be read, or is not safe to read."""

    exit_code = 10
    code = "artifact"


class ManifestError(PackagerError):
    """The archive's manifest is missing or wrong."""

    exit_code = 11
    code = "manifest"


class RequestError(PackagerError):
    """The packaging, its arguments, targets or connections are wrong.

    The message lists every problem, one a line.

    Attributes:
        problems: The problems by themselves, where there may be several.
    """

    exit_code = 12
    code = "request"
    problems: tuple[str, ...] = ()

    @classmethod
    def from_problems(cls, subject: str, problems: list[str], *, hint: str = "") -> RequestError:
        """Make one error of all that is wrong with `subject`."""
        error = cls("\n".join([f"{subject}:", *(f"  - {problem}" for problem in problems)]), hint=hint)
        error.problems = tuple(problems)
        return error


class StorageError(PackagerError):
    """The artifact store answered with an error."""

    exit_code = 14
    code = "storage"


class StorageAuthError(StorageError):
    """The artifact store refused the credentials, or there are none."""

    exit_code = 15
    code = "storage-auth"


class StorageUnreachableError(StorageError):
    """The artifact store can't be reached at all."""

    exit_code = 16
    code = "storage-unreachable"


class DependenciesError(PackagerError):
    """The model's conda or pip file is missing or wrong."""

    exit_code = 20
    code = "dependencies"


class SolveError(DependenciesError):
    """No set of packages satisfies the model's dependencies."""

    exit_code = 21
    code = "solve"


class ChannelError(DependenciesError):
    """A conda channel or a package index can't be reached."""

    exit_code = 22
    code = "channel"


class InstallError(DependenciesError):
    """A package can't be fetched, built or linked."""

    exit_code = 23
    code = "install"


class ModelCheckError(PackagerError):
    """The model can't serve, or can't be checked where that was asked for."""

    exit_code = 24
    code = "model-check"


class RegistryError(PackagerError):
    """The registry answered with an error."""

    exit_code = 30
    code = "registry"


class RegistryAuthError(RegistryError):
    """The registry refused the credentials."""

    exit_code = 31
    code = "registry-auth"


class RegistryUnreachableError(RegistryError):
    """The registry can't be reached at all."""

    exit_code = 32
    code = "registry-unreachable"


class ImageNotFoundError(RegistryError):
    """The registry, or the local storage, has no such base image."""

    exit_code = 33
    code = "image-not-found"


class BuildError(PackagerError):
    """The engine failed."""

    exit_code = 40
    code = "build"


class BuildStepError(BuildError):
    """A RUN step of the build failed."""

    exit_code = 41
    code = "build-step"


class OutOfMemoryError(BuildError):
    """The engine was killed for its memory."""

    exit_code = 42
    code = "out-of-memory"


class ToolMissingError(BuildError):
    """A program that the engine needs is not installed."""

    exit_code = 43
    code = "tool-missing"


class DiskFullError(PackagerError):
    """No space is left where we write."""

    exit_code = 50
    code = "disk-full"


class ClusterError(PackagerError):
    """The Kubernetes cluster answered with an error.

    `passing` tells that a moment later the answer may be another.
    """

    exit_code = 60
    code = "cluster"

    def __init__(self, message: str, *, hint: str = "", passing: bool = False) -> None:
        """Keep the message, the hint and whether it may pass."""
        super().__init__(message, hint=hint)
        self.passing = passing


class ClusterAccessError(ClusterError):
    """The cluster doesn't know the user, or doesn't allow what was asked."""

    exit_code = 61
    code = "cluster-access"


class ClusterUnreachableError(ClusterError):
    """The cluster can't be reached, or no cluster is configured."""

    exit_code = 62
    code = "cluster-unreachable"


class EntityNotFoundError(ClusterError):
    """The cluster has no such packaging, connection or integration."""

    exit_code = 63
    code = "not-found"


class EntityExistsError(ClusterError):
    """The cluster has an entity of that id already."""

    exit_code = 64
    code = "exists"


class PackagingFailedError(ClusterError):
    """The packaging failed in the cluster, without an exit code of its own to pass on."""

    exit_code = 65
    code = "packaging-failed"

    def __init__(self, message: str, *, hint: str = "", own_code: int | None = None) -> None:
        """Take the exit code that the packaging itself ended with, where it tells of a failure, for the process."""
        super().__init__(message, hint=hint)
        if own_code and own_code < _SIGNALS and own_code in exit_codes():
            self.exit_code = own_code  # type: ignore[misc]


class WaitTimeoutError(ClusterError):
    """The packaging has not ended in the time that was given; it goes on."""

    exit_code = 66
    code = "wait-timeout"


class ServiceError(PackagerError):
    """The API service refused something, or can't be reached; shown in JupyterLab's panel.

    Attributes:
        status: The HTTP status that the panel's own server answers with.
    """

    exit_code = 71
    code = "service"

    def __init__(self, message: str, *, hint: str = "", status: int = 502) -> None:
        """Keep the message, the hint and the status."""
        super().__init__(message, hint=hint)
        self.status = status


class DatabaseError(PackagerError):
    """The API service's database can't be reached, or refuses."""

    exit_code = 70
    code = "database"


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop, by SIGINT or SIGTERM.

    No `Exception`: whoever handles all of those, as `logging` does while it writes a line, must not swallow it.
    """

    def __init__(self, signal_number: int) -> None:
        """Remember the signal."""
        super().__init__(signal_number)
        self.signal_number = signal_number

    def as_error(self) -> PackagerError:
        """Return the error to show; its exit code is 128 plus the signal's number, as the shell counts."""
        message = f"interrupted by {Signals(self.signal_number).name}"
        error = PackagerError(message, hint="nothing was reported as built; run it again")
        error.code, error.exit_code = "interrupted", 128 + self.signal_number  # type: ignore[misc]
        return error


def is_disk_full(error: OSError) -> bool:
    """Tell whether the operating system refused for want of space, on the disk or in a quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def exit_codes() -> dict[int, str]:
    """Return every exit code with its meaning, from the classes above."""
    codes = {0: "The image is built and stands at its destination."}
    pending: list[type[PackagerError]] = [PackagerError]
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        if error.__module__ != __name__:  # of a module that may be loaded or not; it has the code of one above
            continue
        summary = (error.__doc__ or "").splitlines()[0]
        codes[error.exit_code] = (
            summary if error is not PackagerError else "Something failed that has no code of its own."
        )
    return {
        **dict(sorted(codes.items())),
        130: "Interrupted by SIGINT; nothing was reported as built.",
        READER_GONE: "Whoever read the output has gone, as `head` does.",
        143: "Interrupted by SIGTERM; nothing was reported as built.",
    }
