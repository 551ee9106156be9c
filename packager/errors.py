"""Every error that the program reports, each with an exit code and a hint.

PackagerError                     1   unexpected error: a bug
├── UsageError                    2   the command line or a setting is wrong
├── ArtifactError                10   the model archive is unreadable or unsafe
├── ManifestError                11   the archive's manifest is missing or invalid
├── RequestError                  12   the packaging, an argument, target or connection is invalid
├── StorageError                  14   the artifact store returned an error
│   ├── StorageAuthError          15   ... rejected or missing credentials
│   └── StorageUnreachableError   16   ... unreachable
├── DependenciesError             20   the model's conda or pip file is missing or invalid
│   ├── SolveError                21   no set of packages satisfies the file
│   ├── ChannelError              22   a conda channel or package index is unreachable
│   └── InstallError              23   a package cannot be downloaded, built or installed
├── ModelCheckError              24   the model cannot serve, or a required check cannot run
├── RegistryError                 30   the registry returned an error
│   ├── RegistryAuthError         31   ... rejected credentials
│   ├── RegistryUnreachableError  32   ... unreachable
│   └── ImageNotFoundError        33   ... base image not found
├── BuildError                    40   the build failed
│   ├── BuildStepError            41   ... in a RUN step
│   ├── OutOfMemoryError          42   ... out of memory
│   └── ToolMissingError          43   ... a required program is not installed
├── DiskFullError                 50   no space left on device
├── ClusterError                 60   the Kubernetes cluster returned an error
│   ├── ClusterAccessError       61   ... authentication or authorization failed
│   ├── ClusterUnreachableError  62   ... unreachable, or no cluster is configured
│   ├── EntityNotFoundError      63   ... packaging, connection or integration not found
│   ├── EntityExistsError        64   ... the ID is already in use
│   ├── PackagingFailedError     65   the packaging failed in the cluster, exit code unknown
│   └── WaitTimeoutError         66   timed out waiting for the packaging
├── DatabaseError                70   the API service's database is unreachable or returned an error
├── ServiceError                 71   the API service is unreachable or returned an error (JupyterLab panel)
└── Interrupted             130, 143   SIGINT, SIGTERM; 137 for a worker that was killed by SIGKILL

A closed output pipe (as by `head`) ends the program with 141 and no error message.
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
    """Invalid command line or setting."""

    exit_code = 2
    code = "usage"


class ArtifactError(PackagerError):
    """The model archive is unreadable or unsafe."""

    exit_code = 10
    code = "artifact"


class ManifestError(PackagerError):
    """The archive's manifest is missing or invalid."""

    exit_code = 11
    code = "manifest"


class RequestError(PackagerError):
    """The packaging, an argument, a target or a connection is invalid.

    The message lists every problem, one per line.

    Attributes:
        problems: The individual problems.
    """

    exit_code = 12
    code = "request"
    problems: tuple[str, ...] = ()

    @classmethod
    def from_problems(cls, subject: str, problems: list[str], *, hint: str = "") -> RequestError:
        """Combine all problems of `subject` into one error."""
        error = cls("\n".join([f"{subject}:", *(f"  - {problem}" for problem in problems)]), hint=hint)
        error.problems = tuple(problems)
        return error


class StorageError(PackagerError):
    """The artifact store returned an error."""

    exit_code = 14
    code = "storage"


class StorageAuthError(StorageError):
    """The artifact store rejected the credentials, or none were given."""

    exit_code = 15
    code = "storage-auth"


class StorageUnreachableError(StorageError):
    """The artifact store is unreachable."""

    exit_code = 16
    code = "storage-unreachable"


class DependenciesError(PackagerError):
    """The model's conda or pip file is missing or invalid."""

    exit_code = 20
    code = "dependencies"


class SolveError(DependenciesError):
    """No set of packages satisfies the model's dependencies."""

    exit_code = 21
    code = "solve"


class ChannelError(DependenciesError):
    """A conda channel or package index is unreachable."""

    exit_code = 22
    code = "channel"


class InstallError(DependenciesError):
    """A package cannot be downloaded, built or installed."""

    exit_code = 23
    code = "install"


class ModelCheckError(PackagerError):
    """The model cannot serve, or a required check cannot run."""

    exit_code = 24
    code = "model-check"


class RegistryError(PackagerError):
    """The registry returned an error."""

    exit_code = 30
    code = "registry"


class RegistryAuthError(RegistryError):
    """The registry rejected the credentials."""

    exit_code = 31
    code = "registry-auth"


class RegistryUnreachableError(RegistryError):
    """The registry is unreachable."""

    exit_code = 32
    code = "registry-unreachable"


class ImageNotFoundError(RegistryError):
    """The base image does not exist in the registry or local storage."""

    exit_code = 33
    code = "image-not-found"


class BuildError(PackagerError):
    """The build failed."""

    exit_code = 40
    code = "build"


class BuildStepError(BuildError):
    """A RUN step of the build failed."""

    exit_code = 41
    code = "build-step"


class OutOfMemoryError(BuildError):
    """The build ran out of memory."""

    exit_code = 42
    code = "out-of-memory"


class ToolMissingError(BuildError):
    """A required program is not installed."""

    exit_code = 43
    code = "tool-missing"


class DiskFullError(PackagerError):
    """No space left on device."""

    exit_code = 50
    code = "disk-full"


class ClusterError(PackagerError):
    """The Kubernetes cluster returned an error.

    Attributes:
        retryable: Another try may succeed.
    """

    exit_code = 60
    code = "cluster"

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False) -> None:
        """Keep the message, the hint and whether another try may succeed."""
        super().__init__(message, hint=hint)
        self.retryable = retryable


class ClusterAccessError(ClusterError):
    """The cluster rejected the credentials or the permission is missing."""

    exit_code = 61
    code = "cluster-access"


class ClusterUnreachableError(ClusterError):
    """The cluster is unreachable, or no cluster is configured."""

    exit_code = 62
    code = "cluster-unreachable"


class EntityNotFoundError(ClusterError):
    """The packaging, connection or integration does not exist in the cluster."""

    exit_code = 63
    code = "not-found"


class EntityExistsError(ClusterError):
    """An entity with this ID already exists in the cluster."""

    exit_code = 64
    code = "exists"


class PackagingFailedError(ClusterError):
    """The packaging failed in the cluster with an unknown exit code."""

    exit_code = 65
    code = "packaging-failed"

    def __init__(self, message: str, *, hint: str = "", own_code: int | None = None) -> None:
        """Use the packaging's own exit code for this process where it is a known failure."""
        super().__init__(message, hint=hint)
        if own_code and own_code < _SIGNALS and own_code in exit_codes():
            self.exit_code = own_code  # type: ignore[misc]


class WaitTimeoutError(ClusterError):
    """Timed out waiting for the packaging, which continues in the cluster."""

    exit_code = 66
    code = "wait-timeout"


class ServiceError(PackagerError):
    """The API service is unreachable or returned an error.

    The JupyterLab panel shows it.

    Attributes:
        status: The HTTP status that the panel's server part returns.
    """

    exit_code = 71
    code = "service"

    def __init__(self, message: str, *, hint: str = "", status: int = 502) -> None:
        """Keep the message, the hint and the status."""
        super().__init__(message, hint=hint)
        self.status = status


class DatabaseError(PackagerError):
    """The API service's database is unreachable or returned an error."""

    exit_code = 70
    code = "database"


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM was received, or a worker process was killed by another signal.

    Not an `Exception`, so that code which catches all exceptions (`logging` does) does not swallow it.
    """

    def __init__(self, signal_number: int) -> None:
        """Remember the signal."""
        super().__init__(signal_number)
        self.signal_number = signal_number

    def as_error(self) -> PackagerError:
        """Return the error to show. Its exit code is 128 plus the signal number, as in a shell."""
        code, hint = "interrupted", "no image was reported; run the command again"
        if self.signal_number not in (Signals.SIGINT, Signals.SIGTERM):
            code, hint = "killed", "memory may have run out: give it more memory, or look at the system log"
        error = PackagerError(f"{code} by {Signals(self.signal_number).name}", hint=hint)
        error.code, error.exit_code = code, 128 + self.signal_number  # type: ignore[misc]
        return error


def is_disk_full(error: OSError) -> bool:
    """Return whether the error means a full disk or an exceeded quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def exit_codes() -> dict[int, str]:
    """Return every exit code with its meaning."""
    codes = {0: "Success: the image was built and delivered."}
    pending: list[type[PackagerError]] = [PackagerError]
    while pending:
        error = pending.pop()
        pending.extend(error.__subclasses__())
        if error.__module__ != __name__:  # a subclass elsewhere shares its parent's exit code
            continue
        codes[error.exit_code] = (error.__doc__ or "").splitlines()[0]
    return {
        **dict(sorted(codes.items())),
        1: "Unexpected error (a bug; please report it).",
        130: "Interrupted by SIGINT. No image was reported.",
        137: "Killed by SIGKILL, usually because memory ran out.",
        READER_GONE: "The output pipe was closed by its reader.",
        143: "Interrupted by SIGTERM. No image was reported.",
    }
