"""Errors of an engine's run, from its last lines of output and its exit code. Pure.

The texts are those of containers/image and docker/distribution, observed with Buildah 1.28, and of
go-containerregistry, which Kaniko uses; see the tables in `test_build_errors.py` and `test_kaniko_command.py`.
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
# Messages of a write that ended early without its reason. With `--timestamp`, Buildah 1.28 rewrites layers through a
# pipe and reports only the closed pipe for a full TMPDIR.
_WRITING_ENDED = re.compile(r"storing (?:layer|blob)|closed pipe|short write|unexpected EOF", re.IGNORECASE)
# How Buildah and its libraries write an HTTP status: "status code 429", "HTTP status: 429", "StatusCode: 429".
_STATUS = r"status:? ?(?:code:? )?"
_TRANSIENT = re.compile(
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
    """An engine's command that failed.

    Attributes:
        stage: The engine's command.
        subject: The reference or destination that it was applied to.
        host: The registry's host; empty without a registry.
        full: The folders that were full afterwards; only determined if `may_be_full` is true.
    """

    stage: Stage
    subject: str
    host: str = ""
    full: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the start of a message."""
        return f"{self.stage} of {self.subject}"


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """A kind of registry error: the pattern of its text, its class, and our message."""

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
        hint="if plain HTTP is intended, set PACKAGER_INSECURE_REGISTRIES={host}",
    ),
    _Answer(
        told=r"unauthorized|authentication required|access to the resource is denied|: denied\b"
        rf"|invalid username/password|no basic auth credentials|\b40[13] \(|{_STATUS}40[13]\b",
        error=RegistryAuthError,
        message="the registry {host} refused the credentials: {cause}",
        hint="check the user and password of the connection for {host}, and the user's permission to {stage}",
    ),
    _Answer(
        told="x509: certificate has expired",
        error=RegistryUnreachableError,
        message="the certificate of {host} has expired, or is not valid yet: {cause}",
        hint="renew it on the registry; also check the clock of this machine",
    ),
    _Answer(
        told="x509: (?:certificate is (?:valid for|not valid for any names)|cannot validate certificate for)",
        error=RegistryUnreachableError,
        message="the certificate of {host} is for another name: {cause}",
        hint="use the host name in the certificate, or give the registry a certificate for this name",
    ),
    _Answer(
        told="remote error: tls: ",
        error=RegistryUnreachableError,
        message="the registry {host} didn't accept our TLS connection: {cause}",
        hint="if it requires a client certificate, set PACKAGER_CLIENT_CERTIFICATES={host}=CERTIFICATE:KEY",
    ),
    _Answer(
        told="x509:|tls: ",
        error=RegistryUnreachableError,
        message="the certificate of {host} can't be trusted: {cause}",
        hint="set PACKAGER_CA_FILE to a PEM file with the authority that signed it",
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
        hint="raise its limit (nginx: client_max_body_size, ingress-nginx: proxy-body-size)",
        stages=("push",),
    ),
    _Answer(
        told=rf"{_SERVER_ERROR}|(?:uploading|initiating) .*no space left",
        error=RegistryError,
        message="the registry {host} couldn't store the image: {cause}",
        hint="the storage of {host} may be full or broken: check its log, then push again",
        stages=("push",),
    ),
    _Answer(
        told=_SERVER_ERROR,
        error=RegistryError,
        message="the registry {host} failed: {cause}",
        hint="check the log of {host}, then run it again",
        stages=("pull",),
    ),
)


def failure(attempt: Attempt, completed: Completed) -> PackagerError:
    """Return the error for a failed command."""
    error = _last_error(completed.output)
    if completed.returncode in KILLED:
        return OutOfMemoryError(
            f"{attempt} was killed (signal 9), most likely for the memory it took",
            hint="give the job more memory, or move temporary files from a tmpfs to a disk (PACKAGER_WORK_DIR)",
        )
    found = registry_answer(attempt, error) or _step_failure(completed.output, error)
    if found is None or isinstance(found, BuildStepError):
        if NO_SPACE.search(completed.output):
            return DiskFullError(
                f"{attempt}: no space left on this machine",
                hint="free disk space in the container storage (`buildah rmi --prune`), in TMPDIR or at the output",
            )
        if found is None and attempt.full and may_be_full(error):
            return DiskFullError(
                f"{attempt}: no space left in {' or '.join(attempt.full)}: {sanitize(error, limit=LINE_LIMIT)}",
                hint="free disk space there, or set PACKAGER_WORK_DIR to a folder on a larger disk",
            )
        if found is None and attempt.stage in _LOOKS_FOR_BASE and _LOOKS_FOR_BASE[attempt.stage].search(error):
            return image_not_found(attempt)
    return found or (RegistryError if attempt.host else BuildError)(
        f"{attempt} failed: {sanitize(error, limit=LINE_LIMIT)}"
    )


def is_retryable(error: PackagerError, completed: Completed) -> bool:
    """Return whether a failed pull or push is worth a retry, because of a transient registry error."""
    if isinstance(error, RegistryAuthError | ImageNotFoundError) or not isinstance(error, RegistryError):
        return False
    return _TRANSIENT.search(_last_error(completed.output)) is not None


def may_be_full(output: str) -> bool:
    """Return whether a full disk may have caused this output, which doesn't mention one."""
    return _WRITING_ENDED.search(output) is not None


def image_not_found(attempt: Attempt) -> ImageNotFoundError:
    """Return the error for a missing base image."""
    if attempt.host:
        return ImageNotFoundError(
            f"the registry {attempt.host} has no image {attempt.subject}",
            hint="check the name and tag of dockerfileBaseImage",
        )
    return ImageNotFoundError(
        f"the local storage has no image {attempt.subject}",
        hint="list its images with `buildah images`; names below localhost/ are never pulled",
    )


def registry_answer(attempt: Attempt, error: str) -> PackagerError | None:
    """Return the error for a registry's response, or None if the text is not one."""
    if attempt.host:
        values = {"host": attempt.host, "stage": attempt.stage, "cause": _cause(error)}
        for answer in _ANSWERS:
            if attempt.stage in answer.stages and re.search(answer.told, error, re.IGNORECASE | re.MULTILINE):
                return answer.error(f"{attempt}: {answer.message.format(**values)}", hint=answer.hint.format(**values))
    return None


def _step_failure(output: str, error: str) -> PackagerError | None:
    """Return the error for a failed RUN step, or None without one."""
    step = _STEP.search(error)
    if step is None:
        return None
    if _NO_RUNTIME.search(output):
        return BuildError(
            f"cannot start RUN steps on this machine:\n{tail(output)}",
            hint="set another isolation, such as PACKAGER_BUILDAH_ISOLATION=chroot",
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
    """Return the engine's last `Error:` text, without earlier retries."""
    at = output.rfind("\nError: ") + 1 if "\nError: " in output else 0
    text = output[at:].removeprefix("Error: ").strip()
    return text or "no reason given"


def _cause(error: str) -> str:
    """Return the last part of a chain of causes."""
    return sanitize(": ".join(error.splitlines()[0].split(": ")[-2:]), limit=LINE_LIMIT)


def tail(output: str) -> str:
    """Return the last lines of an output, each shortened."""
    return "\n".join(sanitize(line, limit=LINE_LIMIT) for line in output.splitlines()[-_TAIL_LINES:])
