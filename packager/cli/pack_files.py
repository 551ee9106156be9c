"""What `packager pack` reads: a packaging and its connections from files, and the settings of Jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packager.errors import RequestError, UsageError
from packager.kube.job_settings import JobSettings
from packager.models.documents import Documents, read_documents

if TYPE_CHECKING:
    from pathlib import Path

    from packager.cli.options import JobEngineName
    from packager.cli.session import Session
    from packager.models.packaging import ModelPackaging


def read_settings(file: Path | None) -> JobSettings:
    """Read the settings of Jobs from a file; the defaults without one.

    Raises:
        UsageError: It can't be read, or is wrong.
    """
    if file is None:
        return JobSettings()
    try:
        return JobSettings.from_yaml(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: can't be read: {error}", hint="name a YAML file in --settings") from error


def with_engine(settings: JobSettings, engine: JobEngineName | None) -> JobSettings:
    """Return the settings with the engine of the command line, if it names one."""
    return settings.model_copy(update={"engine": engine.value}) if engine else settings


def pick_packaging(documents: Documents, packaging_id: str | None, artifact_name: str | None) -> ModelPackaging:
    """Return the packaging of the files that has this id, else the only one, under this id.

    Raises:
        RequestError: There is none, or several could be meant.
    """
    if not documents.packagings:
        raise RequestError("the files hold no ModelPackaging", hint="give its YAML file with -f")
    known = packaging_id if packaging_id in documents.packagings or len(documents.packagings) > 1 else None
    packaging = documents.pick_packaging(known)
    changes = {"artifact_name": artifact_name} if artifact_name else {}
    spec = packaging.spec.model_copy(update=changes)
    return packaging.model_copy(update={"id": packaging_id or packaging.id, "spec": spec})


def read_packaging(
    session: Session, files: list[Path], packaging_id: str | None, artifact_name: str | None
) -> tuple[Documents, ModelPackaging]:
    """Read the files and return them with the packaging that is meant; their secrets are known from then on.

    Raises:
        RequestError: A document is wrong, or it's not clear which packaging is meant.
    """
    documents = read_documents(files)
    for connection in documents.connections.values():
        session.redactor.add(connection.spec.secrets())
    return documents, pick_packaging(documents, packaging_id, artifact_name)
