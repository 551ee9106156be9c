"""The result of a packaging for its callers, written atomically at the end."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packager.errors import PackagerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from packager.engines import BuiltImage

# The kubelet's limit: kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure
TERMINATION_LOG_BYTES = 4096
TERMINATION_LOG = Path("/dev/termination-log")


@dataclass(frozen=True, kw_only=True)
class PackagingResult:
    """The result for a built image.

    Attributes:
        image: The full reference with its tag: `host/path:tag`.
        image_digest: `host/path@sha256:…`.
        model_check: `passed`, or `skipped: ` and the reason.
        output: `oci:DIR` or `oci-archive:FILE` for a local output, else empty.
    """

    image: str
    image_digest: str
    model_check: str
    output: str = ""

    @classmethod
    def of(cls, built: BuiltImage, model_check: str) -> PackagingResult:
        """Return the result for a built image and the outcome of the model check."""
        reference, destination = built.destination.reference, built.destination
        return cls(
            image=str(reference),
            image_digest=reference.with_digest(built.digest),
            model_check=model_check,
            output="" if destination.transport == "docker" else str(destination),
        )

    def to_dict(self) -> dict[str, str]:
        """Return the flat object of strings for `status.results`."""
        results = {
            "image": self.image,
            "imageDigest": self.image_digest,
            "modelCheck": self.model_check,
            "output": self.output,
        }
        return {name: value for name, value in results.items() if value}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The outputs for results.

    Attributes:
        result_file: A JSON object of strings.
        results_dir: A folder with one file per result, for Tekton and Argo.
        termination_log: The Job's termination log, which is also written on failure.
    """

    result_file: Path | None = None
    results_dir: Path | None = None
    termination_log: Path | None = None

    def prepare(self) -> None:
        """Remove results of an earlier run, and check that the outputs are writable.

        Raises:
            UsageError: An output is not writable.
        """
        try:
            if self.results_dir is not None:
                self.results_dir.mkdir(parents=True, exist_ok=True)
            self._take_back()
            if self.result_file is not None:
                _check_writable(self.result_file.absolute().parent)
            if self.results_dir is not None:
                _check_writable(self.results_dir)
            if self.termination_log is not None:
                with self.termination_log.open("ab"):
                    pass
        except OSError as error:
            raise UsageError(
                f"cannot write results to {error.filename}: {error.strerror}", hint="use a writable path"
            ) from error

    def write(self, result: PackagingResult) -> None:
        """Write the results to all outputs, the termination log last.

        Raises:
            PackagerError: An output can't be written. The others are removed; the delivered image stays.
        """
        results = result.to_dict()
        text = json.dumps(results, indent=2) + "\n"
        try:
            if self.results_dir is not None:
                for name, value in results.items():
                    _write_atomically(self.results_dir / name, value)
            if self.result_file is not None:
                _write_atomically(self.result_file.absolute(), text)
            self._write_termination_log(results)
        except OSError as error:
            self._take_back()
            raise PackagerError(
                f"the image {result.image_digest} was delivered, but its results can't be written: {error}",
                hint="free disk space at the outputs, or use other paths, and run it again",
            ) from error

    def _take_back(self) -> None:
        if self.result_file is not None:
            self.result_file.unlink(missing_ok=True)
        if self.results_dir is not None:
            for name in PackagingResult.__dataclass_fields__:
                (self.results_dir / _camel(name)).unlink(missing_ok=True)

    def write_error(self, error: PackagerError) -> None:
        """Write the error to the termination log, shortened to the kubelet's limit."""
        message, hint = error.message, error.hint
        body = {"error": {"code": error.code, "message": message, "hint": hint}}
        while len(json.dumps(body).encode()) > TERMINATION_LOG_BYTES:
            excess = len(json.dumps(body).encode()) - TERMINATION_LOG_BYTES
            message = message[: max(0, len(message) - max(excess // 6, 16))]
            hint = hint if message else hint[: len(hint) // 2]
            body = {"error": {"code": error.code, "message": f"{message}…", "hint": hint}}
        self._write_termination_log(body)

    def _write_termination_log(self, body: Mapping[str, object]) -> None:
        if self.termination_log is not None:
            # A mounted file can't be replaced by a rename, so it is written in one call.
            self.termination_log.write_text(json.dumps(body) + "\n", encoding="utf-8")


def default_termination_log() -> Path | None:
    """Return the Job's termination log, or None outside a Job."""
    return TERMINATION_LOG if TERMINATION_LOG.exists() else None


def find_termination_log(words: Sequence[str]) -> Path | None:
    """Return the termination log that the arguments of a command name, else the default."""
    named = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        if option == "--termination-log":
            named = value if equals else following
    return Path(named) if named else default_termination_log()


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(word.capitalize() for word in tail)


def _check_writable(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass


def _write_atomically(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
