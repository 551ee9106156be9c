"""What a packaging tells its callers: written atomically, at the very end."""

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

# The kubelet reads no more: kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure
TERMINATION_LOG_BYTES = 4096
TERMINATION_LOG = Path("/dev/termination-log")


@dataclass(frozen=True, kw_only=True)
class PackagingResult:
    """A built image as its callers see it.

    Attributes:
        image: The full reference with its tag: `host/path:tag`.
        image_digest: `host/path@sha256:…`.
        model_check: `passed`, or `skipped: ` and why the model was not checked.
        output: `oci:DIR` or `oci-archive:FILE` when the image went to no registry, else empty.
    """

    image: str
    image_digest: str
    model_check: str
    output: str = ""

    @classmethod
    def of(cls, built: BuiltImage, model_check: str) -> PackagingResult:
        """Name the built image, and say what became of the check of its model."""
        reference, destination = built.destination.reference, built.destination
        return cls(
            image=str(reference),
            image_digest=reference.with_digest(built.digest),
            model_check=model_check,
            output="" if destination.transport == "docker" else str(destination),
        )

    def to_dict(self) -> dict[str, str]:
        """Return the flat object of strings that becomes `status.results`."""
        results = {
            "image": self.image,
            "imageDigest": self.image_digest,
            "modelCheck": self.model_check,
            "output": self.output,
        }
        return {name: value for name, value in results.items() if value}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where results are written.

    Attributes:
        result_file: A JSON object of strings.
        results_dir: A folder with one file a result, as Tekton and Argo read them.
        termination_log: The Job's termination log; the one output that is written on failure as well.
    """

    result_file: Path | None = None
    results_dir: Path | None = None
    termination_log: Path | None = None

    def prepare(self) -> None:
        """Take away what an earlier run left, and make sure that the outputs can be written when their time comes.

        Raises:
            UsageError: One of them can't.
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
                f"results can't be written to {error.filename}: {error.strerror}", hint="name a writable place"
            ) from error

    def write(self, result: PackagingResult) -> None:
        """Write the results everywhere; the termination log last.

        Raises:
            PackagerError: One of them can't be written. The others are then taken back; the image stays where it is.
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
                f"the image {result.image_digest} is delivered, but its results can't be written: {error}",
                hint="make room at the outputs, or name others, and run it again",
            ) from error

    def _take_back(self) -> None:
        if self.result_file is not None:
            self.result_file.unlink(missing_ok=True)
        if self.results_dir is not None:
            for name in PackagingResult.__dataclass_fields__:
                (self.results_dir / _camel(name)).unlink(missing_ok=True)

    def write_error(self, error: PackagerError) -> None:
        """Write the error, shortened to what the kubelet reads, to the termination log."""
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
            # A file that the kubelet mounts: it can't be renamed over, so it's written in one call.
            self.termination_log.write_text(json.dumps(body) + "\n", encoding="utf-8")


def default_termination_log() -> Path | None:
    """Return the Job's termination log, or None outside of a Job."""
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
