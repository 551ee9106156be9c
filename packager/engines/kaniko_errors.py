r"""What the end of Kaniko means: its last lines and exit code -> one of our errors. Pure.

`executor` ends with one line on standard error, a chain of causes that starts with what it was doing (`exit` in its
cmd/executor/cmd/root.go); the rest of the chain is go-containerregistry's or the operating system's. A RUN step's exit
code becomes its own, and a RUN step that a signal ended becomes 255.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packager.engines.build_errors import KILLED, LINE_LIMIT, NO_SPACE, Attempt, registry_answer, tail
from packager.errors import (
    BuildError,
    BuildStepError,
    DiskFullError,
    ImageNotFoundError,
    OutOfMemoryError,
    PackagerError,
    RegistryError,
)
from packager.logs.sanitize import sanitize

if TYPE_CHECKING:
    from packager.models.reference import Reference
    from packager.system.process import Completed

_VERDICT = re.compile(
    r"^error (?:building image|pushing image|checking push permissions)\b.*", re.MULTILINE | re.DOTALL
)
_STEP = re.compile(r"(?:waiting for process to exit|starting command): (?:exit status (\d+)|signal: (.+)|(.+))")
_RUNNING = re.compile(r"^Running: \[(.*)\]$", re.MULTILINE)
_PULLING = re.compile(r"/v2/|failed to get filesystem from image|error building stage: failed to get|MANIFEST_UNKNOWN")
_UNKNOWN = re.compile(r"MANIFEST_UNKNOWN|NAME_UNKNOWN|manifest unknown|name unknown|status code 404")
_KILLED_STEP = "137"  # as a shell reports it


def kaniko_failure(base: Reference, destination: Reference, completed: Completed) -> PackagerError:
    """Tell which error the failed build of an image on `base` for `destination` stands for.

    `completed.output` holds Kaniko's messages as they were logged, without levels and times.
    """
    found = _VERDICT.findall(completed.output)
    verdict = found[-1].strip() if found else (completed.output.splitlines() or ["it gave no reason"])[-1]
    build = Attempt(stage="build", subject=str(destination))
    if completed.returncode in KILLED and not _STEP.search(verdict):
        return OutOfMemoryError(
            f"{build} was killed (signal 9), most likely for the memory it took",
            hint="give the job more memory (its limit), or keep PACKAGER_WORK_DIR on a disk and not in a memory volume",
        )
    if step := _STEP.search(verdict):
        return _step_failure(completed.output, step)
    if verdict.startswith("error building image"):
        attempt = Attempt(stage="pull", subject=str(base), host=base.host)
        if _UNKNOWN.search(verdict):
            return _not_found(base)
        pulling = _PULLING.search(verdict) is not None
    else:
        attempt = Attempt(stage="push", subject=str(destination), host=destination.host)
        pulling = verdict.startswith("error ")
    answer = registry_answer(attempt, verdict) if pulling else None
    if answer is not None:
        return answer
    if NO_SPACE.search(verdict):
        return _disk_full(build)
    return (RegistryError if pulling else BuildError)(
        f"{attempt if pulling else build} failed: {sanitize(verdict, limit=LINE_LIMIT)}"
    )


def _step_failure(output: str, step: re.Match[str]) -> PackagerError:
    status, killed_by, not_started = step.groups()
    running = _RUNNING.findall(output)
    command = sanitize(running[-1], limit=LINE_LIMIT) if running else "?"
    if (killed_by or "").startswith("killed") or status == _KILLED_STEP:
        return OutOfMemoryError(
            f"the step `RUN {command}` was killed (signal 9), most likely for the memory it took",
            hint="give the job more memory (its limit)",
        )
    if NO_SPACE.search(tail(output)):
        return _disk_full(Attempt(stage="build", subject=f"the step `RUN {command}`"))
    how = f"with exit code {status}" if status else f"by the signal {killed_by!r}" if killed_by else "to start"
    return BuildStepError(
        f"the step `RUN {command}` failed {how}:\n{tail(output)}",
        hint="check that the base image has the program" if not_started else "the last lines above are its own",
    )


def _disk_full(attempt: Attempt) -> DiskFullError:
    return DiskFullError(
        f"{attempt}: no space left on this machine",
        hint="Kaniko unpacks the base image and keeps every layer below /kaniko: give the job more ephemeral storage",
    )


def _not_found(base: Reference) -> ImageNotFoundError:
    return ImageNotFoundError(
        f"the registry {base.host} has no image {base}", hint="check the name and tag of dockerfileBaseImage"
    )
