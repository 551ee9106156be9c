"""What an engine's output means: its last lines and exit code -> one of our errors. Pure.

The texts are those of containers/image and docker/distribution, met with Buildah 1.28, and of go-containerregistry,
with which Kaniko speaks to registries; the tables are in `tests/unit/test_failures.py` and `test_kaniko_failures.py`.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from packager.errors import (
    BuildError,
    BuildStepError,
    DiskFullError,
    ImageNotFoundError,
    OutOfMemoryError,
    PackagerError,
    RegistryAuthError,
    RegistryError,
    RegistryUnreachableError,
)
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from packager.system.process import Completed

Stage = Literal["pull", "inspect", "build", "push"]  # of the engine's commands

_TAIL_LINES = 20
LINE_LIMIT = 1000
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
_STEP = re.compile(r'building at STEP "RUN (.*)": (?:while running runtime: )?(?:exit status (\d+)|signal: (\w+))')
_NO_RUNTIME = re.compile(r"creating container for \[|did not get container create message|error setting up the chroot")
NO_SPACE = re.compile(r"no space left on device", re.IGNORECASE)
# What is told when writing ended early: the reason stays with the part of the engine that wrote. With `--timestamp`
# Buildah 1.28 rewrites layers through a pipe, and of a full TMPDIR only the pipe's end is told.
_WRITING_ENDED = re.compile(r"storing (?:layer|blob)|closed pipe|short write|unexpected EOF", re.IGNORECASE)
# How Buildah and its libraries say an answer's status: "status code 429", "HTTP status: 429", "StatusCode: 429".
_STATUS = r"status:? ?(?:code:? )?"
_PASSING = re.compile(
    r"connection reset|broken pipe|EOF\b|i/o timeout|TLS handshake timeout|toomanyrequests"
    r"|\b(?:read|write) tcp \S+: |transport connection broken|server closed (?:idle )?connection"
    rf"|{_STATUS}(?:429|50[0-4])\b|\b(?:429|50[0-4]) \([A-Z]"
    r"|uploading manifest \S+ to \S+: (?:errors:\s+)?digest invalid\b",  # as in packager.registry.uploads
    re.IGNORECASE,
)
_SERVER_ERROR = rf"{_STATUS}5\d\d\b|\b5\d\d \([A-Z]"
_LOOKS_FOR_BASE: dict[Stage, re.Pattern[str]] = {
    "pull": re.compile(r"manifest unknown|name unknown|not found|image not known", re.IGNORECASE),
    "inspect": re.compile(r"image not known"),
    "build": re.compile(r"image not known"),
}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What was being done when it failed.

    Attributes:
        stage: The engine's command.
        subject: What it was done to: a reference or a destination.
        host: The registry's host; empty where none takes part.
        full: The folders that had no room left right afterwards; only looked for where `may_be_full` says so.
    """

    stage: Stage
    subject: str
    host: str = ""
    full: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as the start of a message."""
        return f"{self.stage} of {self.subject}"


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A way in which registries fail: how it is told, its class, and what we say."""

    told: str
    error: type[PackagerError]
    message: str
    hint: str
    stages: tuple[Stage, ...] = ("pull", "push")


_ANSWERS = (
    _Answer(
        told="server gave HTTP response to HTTPS client",
        error=RegistryUnreachableError,
        message="the registry {host} speaks plain HTTP, and was asked in HTTPS",
        hint="if that is meant to be so, set PACKAGER_INSECURE_REGISTRIES={host}",
    ),
    _Answer(
        told=r"unauthorized|authentication required|access to the resource is denied|: denied\b"
        rf"|invalid username/password|no basic auth credentials|\b40[13] \(|{_STATUS}40[13]\b",
        error=RegistryAuthError,
        message="the registry {host} refused the credentials: {cause}",
        hint="check user and password of the connection for {host}, and that this user may {stage} there",
    ),
    _Answer(
        told="x509: certificate has expired",
        error=RegistryUnreachableError,
        message="the certificate of {host} has expired, or is not valid yet: {cause}",
        hint="renew it on the registry; check this clock too",
    ),
    _Answer(
        told="x509: (?:certificate is (?:valid for|not valid for any names)|cannot validate certificate for)",
        error=RegistryUnreachableError,
        message="the certificate of {host} is for another name: {cause}",
        hint="name the registry as its certificate does, or let it have a certificate for this name",
    ),
    _Answer(
        told="remote error: tls: ",
        error=RegistryUnreachableError,
        message="the registry {host} didn't accept our TLS connection: {cause}",
        hint="if it asks for a client certificate, name it in PACKAGER_CLIENT_CERTIFICATES={host}=CERTIFICATE:KEY",
    ),
    _Answer(
        told="x509:|tls: ",
        error=RegistryUnreachableError,
        message="the certificate of {host} can't be trusted: {cause}",
        hint="name a PEM file with the authority that signed it in PACKAGER_CA_FILE",
    ),
    _Answer(
        told=r"connection refused|no such host|i/o timeout|context deadline exceeded|Client\.Timeout|no route to host"
        r"|network is unreachable|connection reset by peer|server misbehaving|TLS handshake timeout|: EOF$",
        error=RegistryUnreachableError,
        message="the registry {host} can't be reached: {cause}",
        hint="check its name and port, the network, and the proxy variables",
    ),
    _Answer(
        told=rf"{_STATUS}429\b|\b429 \([A-Z]|toomanyrequests",
        error=RegistryError,
        message="the registry {host} limits the rate of requests: {cause}",
        hint="wait, or log in with a connection",
    ),
    _Answer(
        told=rf"{_STATUS}413\b|\b413 \([A-Z]",
        error=RegistryError,
        message="the registry {host}, or a proxy before it, takes no requests of this size: {cause}",
        hint="raise the limit there (client_max_body_size of nginx, proxy-body-size of its ingress)",
        stages=("push",),
    ),
    _Answer(
        told=rf"{_SERVER_ERROR}|(?:uploading|initiating) .*no space left",
        error=RegistryError,
        message="the registry {host} couldn't store the image: {cause}",
        hint="the storage of {host} may be out of space or out of order: look into its log, then push again",
        stages=("push",),
    ),
    _Answer(
        told=_SERVER_ERROR,
        error=RegistryError,
        message="the registry {host} failed: {cause}",
        hint="look into the log of {host}, then run it again",
        stages=("pull",),
    ),
)


def failure(attempt: Attempt, completed: Completed) -> PackagerError:
    """Tell which error a command that has failed stands for."""
    error = _last_error(completed.output)
    if completed.returncode in KILLED:
        return OutOfMemoryError(
            f"{attempt} was killed (signal 9), most likely for the memory it took",
            hint="give the job more memory, or keep temporary files on a disk and not in a tmpfs (PACKAGER_WORK_DIR)",
        )
    found = registry_answer(attempt, error) or _step_failure(completed.output, error)
    if found is None or isinstance(found, BuildStepError):
        if NO_SPACE.search(completed.output):
            return DiskFullError(
                f"{attempt}: no space left on this machine",
                hint="make room in the container storage (`buildah rmi --prune`), in TMPDIR or at the output",
            )
        if found is None and attempt.full and may_be_full(error):
            return DiskFullError(
                f"{attempt}: no space left in {' or '.join(attempt.full)}: {sanitize(error, limit=LINE_LIMIT)}",
                hint="make room there, or let PACKAGER_WORK_DIR name a folder on a larger disk",
            )
        if found is None and attempt.stage in _LOOKS_FOR_BASE and _LOOKS_FOR_BASE[attempt.stage].search(error):
            return image_not_found(attempt)
    return found or (RegistryError if attempt.host else BuildError)(
        f"{attempt} failed: {sanitize(error, limit=LINE_LIMIT)}"
    )


def is_retryable(error: PackagerError, completed: Completed) -> bool:
    """Tell whether a failed pull or push may succeed in a moment: the registry was there, and in trouble."""
    if isinstance(error, RegistryAuthError | ImageNotFoundError) or not isinstance(error, RegistryError):
        return False
    return _PASSING.search(_last_error(completed.output)) is not None


def may_be_full(output: str) -> bool:
    """Tell whether what was told may come of a full disk, though it doesn't say so."""
    return _WRITING_ENDED.search(output) is not None


def image_not_found(attempt: Attempt) -> ImageNotFoundError:
    """Say that the base image is nowhere."""
    if attempt.host:
        return ImageNotFoundError(
            f"the registry {attempt.host} has no image {attempt.subject}",
            hint="check the name and tag of dockerfileBaseImage",
        )
    return ImageNotFoundError(
        f"the local storage has no image {attempt.subject}",
        hint="`buildah images` lists what it has; names below localhost/ are never pulled",
    )


def registry_answer(attempt: Attempt, error: str) -> PackagerError | None:
    """Return what the registry's own answer means, or None where none is told."""
    if attempt.host:
        values = {"host": attempt.host, "stage": attempt.stage, "cause": _cause(error)}
        for answer in _ANSWERS:
            if attempt.stage in answer.stages and re.search(answer.told, error, re.IGNORECASE | re.MULTILINE):
                return answer.error(f"{attempt}: {answer.message.format(**values)}", hint=answer.hint.format(**values))
    return None


def _step_failure(output: str, error: str) -> PackagerError | None:
    """Return what the end of a RUN step means, or None where no RUN step failed."""
    step = _STEP.search(error)
    if step is None:
        return None
    if _NO_RUNTIME.search(output):
        return BuildError(
            f"no RUN step can be started on this machine:\n{tail(output)}",
            hint="isolate it in another way, such as PACKAGER_BUILDAH_ISOLATION=chroot",
        )
    command, status, killed_by = step.groups()
    run = f"the step `RUN {sanitize(command, limit=LINE_LIMIT)}`"
    if killed_by == "killed" or status == "137" or "subprocess exited on killed" in output:
        return OutOfMemoryError(
            f"{run} was killed (signal 9), most likely for the memory it took",
            hint="give the build more memory",
        )
    how = f"with exit code {status}" if status else f"by the signal {killed_by!r}"
    return BuildStepError(
        f"{run} failed {how}:\n{tail(output)}",
        hint="the last lines above are its own",
    )


def _last_error(output: str) -> str:
    """Return the engine's own verdict: from its last `Error:` on, without the retries before it."""
    at = output.rfind("\nError: ") + 1 if "\nError: " in output else 0
    text = output[at:].removeprefix("Error: ").strip()
    return text or "it gave no reason"


def _cause(error: str) -> str:
    """Return the last part of a chain of causes, which says what happened and not where."""
    return sanitize(": ".join(error.splitlines()[0].split(": ")[-2:]), limit=LINE_LIMIT)


def tail(output: str) -> str:
    """Return the last lines of an output, each cut where it's long."""
    return "\n".join(sanitize(line, limit=LINE_LIMIT) for line in output.splitlines()[-_TAIL_LINES:])
