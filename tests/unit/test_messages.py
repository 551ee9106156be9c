"""The wording of errors: tests/golden/messages.txt has one line per case, with class, exit code, message and hint.

Other tests assert an error's class and exit code, never its wording.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from packager.cli.builds import read_manifest
from packager.cli.clusters import id_or_file
from packager.cli.printing import checked_format
from packager.environment.conda_file import read_conda_file
from packager.environment.requirements import read_requirements
from packager.errors import Interrupted, PackagerError
from packager.kube.api_errors import ApiRequest, failure
from packager.kube.job_settings import JobSettings
from packager.kube.names import CONFIG_MAPS, JOBS, PODS, SECRETS, Kind, check_id, check_namespace
from packager.logs.progress import SilentReporter
from packager.models.documents import read_documents, read_packaging_manifest
from packager.models.resources import Resources
from packager.request import Overrides, find_integration_type, make_request, parse_argument
from packager.settings import Settings, read_platform
from packager.sources.artifact import open_artifact
from packager.sources.file_list import ArtifactLimits
from packager.sources.stores.location import parse_model
from tests.golden_files import check_golden
from tests.unit.archives import Member, link, wine, write_folder, write_zip
from tests.unit.builders import WINE, packaging

if TYPE_CHECKING:
    from collections.abc import Callable

LIMITS = ArtifactLimits(max_bytes=1000, max_entries=10, max_ratio=1000)


@dataclass
class Cases:
    """Collects one line per error."""

    folder: Path
    lines: list[str]

    def add(self, subject: str, fail: Callable[..., object], *args: Any, **options: Any) -> None:
        with pytest.raises((PackagerError, Interrupted)) as caught:
            pytest.fail(f"no error for {subject}: {args} {options}: {fail(*args, **options)}")
        error = caught.value.as_error() if isinstance(caught.value, Interrupted) else caught.value
        assert isinstance(error, PackagerError)
        hint = f" [hint: {error.hint}]" if error.hint else ""
        text = f"{error.message}{hint}".replace(str(self.folder), "DIR").replace("\n", " / ")
        self.lines.append(f"{subject}: {type(caught.value).__name__} {error.exit_code}: {text}")

    def file(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path


def add_settings(cases: Cases) -> None:
    for name, value in (
        ("PACKAGER_COLOR", "red"),
        ("PACKAGER_GLIBC", "new"),
        ("PACKAGER_ARTIFACT_MAX_BYTES", "-1"),
        ("PACKAGER_PLATFORM", "win-64"),
        ("PACKAGER_CHECK", "sometimes"),
        ("SOURCE_DATE_EPOCH", "yesterday"),
    ):
        cases.add("settings", Settings.from_env, {name: value})
    cases.add("settings", read_platform, "win-64")


def add_command_line(cases: Cases) -> None:
    session: Any = None
    application = find_integration_type(packaging())
    for args in (["wine.zip"], ["s3://models/wine.zip"], ["a", "b", "c"]):
        cases.add("arguments", read_manifest, session, args, None)
    for location in ("ftp://host/wine.zip", "https://ann:pa55w0rd@host/wine.zip", "s3://", "s3://b/k#sha256=1"):
        cases.add("model", parse_model, location, insecure_hosts=())
    cases.add("model", parse_model, "http://host/wine.zip", insecure_hosts=())
    for text in ("port", "port=[1"):
        cases.add("argument", parse_argument, application, text)
    for text in ("xml", "jsonpath", "jsonpath=[*"):
        cases.add("output format", checked_format, text)
    two = "{kind: Connection, id: a, spec: {type: docker}}\n---\n{kind: Connection, id: b, spec: {type: docker}}\n"
    cases.add("--id and --file", id_or_file, None, None, "Connection")
    cases.add("--id and --file", id_or_file, None, cases.file("two.yaml", two), "Connection")
    cases.add("--id and --file", id_or_file, None, cases.file("two.yaml", two), "ModelPackaging")
    for number in (2, 15):
        cases.add("signal", _interrupt, number)


def _interrupt(number: int) -> None:
    raise Interrupted(number)


def add_documents(cases: Cases) -> None:
    connection = "{kind: Connection, id: a, spec: {type: docker, password: cGFzcw==}}"
    for text in (
        "- a",
        "a: [b",
        b"\xff\xfe",
        "kind: Model",
        "{kind: Connection, id: a}",
        "{kind: Connection, id: a, spec: {type: docker, password: pass-word}}",
        f"{connection}\n---\n{connection}",
    ):
        cases.add("documents", read_documents, [cases.file("docs.yaml", text)])
    cases.add("documents", read_documents, [cases.folder / "nowhere.yaml"])
    one = "{id: a, spec: {integrationName: docker-rest, targets: [{name: docker-push, connectionName: b}]}}"
    documents = read_documents([cases.file("docs.yaml", one)])
    cases.add("documents", documents.pick, None)
    cases.add("documents", documents.pick, "wine")
    documents = read_documents([cases.file("docs.yaml", f"{one}\n---\n{one.replace('id: a', 'id: c')}")])
    cases.add("documents", documents.pick, None)
    cases.add("manifest", read_packaging_manifest, cases.folder / "nowhere.json")
    cases.add("manifest", read_packaging_manifest, cases.file("mp.json", "[]"))
    cases.add("manifest", read_packaging_manifest, cases.file("mp.json", '{"modelPackaging": 3}'))


def add_requests(cases: Cases) -> None:
    def make(overrides: Overrides | None = None, **values: Any) -> object:
        return make_request(packaging(**values), WINE.model, overrides, uuid="1")

    for arguments in (
        {"prot": 1},
        {"port": "many"},
        {"port": 0},
        {"imageName": "{{ Nmae }}"},
        {"imageName": "{{ Name"},
        {"imageName": "//"},
        {"dockerfileBaseImage": "Python:3.6"},
        {"dockerfileBaseImage": "python@sha256:12"},
        {"dockerfileCondaEnvsLocation": "opt"},
        {"check": "sometimes"},
    ):
        cases.add("request", make, arguments=arguments)
    registry: dict[str, Any] = {"type": "docker", "uri": "gcr.io/p"}
    for targets in (
        {},
        {"docker-push": {**registry, "type": "s3"}},
        {"docker-push": {**registry, "uri": ""}},
        {"docker-push": {**registry, "uri": "https://gcr.io/p"}},
        {"docker-push": {**registry, "uri": "ann:pw@gcr.io/p"}},
        {"docker-push": {**registry, "uri": "gcr.io/P"}},
        {"docker-push": registry, "docker-store": registry},
    ):
        cases.add("target", make, targets=targets)
    for output in ("tar:x", "oci:", "docker://a/B"):
        cases.add("output", make, Overrides(output=output))
    cases.add("integration", make, integration="docker-nothing")
    cases.add("integration", make, integration="")


def add_archives(cases: Cases) -> None:
    def open_model(source: Path) -> None:
        with TemporaryDirectory(dir=cases.folder) as workspace:
            open_artifact(source, Path(workspace), limits=LIMITS, reporter=SilentReporter())

    for members in (
        [],
        [Member(name="a")],
        wine(Member(name="../escape")),
        wine(Member(name="/etc/passwd")),
        wine(Member(name="model/entry.py")),
        wine(link("model/link", "../../outside")),
        wine(Member(name="big", data=b"x" * 2000)),
        wine(*(Member(name=str(number)) for number in range(20))),
        wine(Member(name="damaged", data=b"abc", claimed_crc=1)),
        wine(manifest="model: {name: wine}"),
        wine(manifest="a: [b"),
        wine()[:1],
        [each for each in wine() if each.name != "model/entry.py"],
    ):
        cases.add("archive", open_model, write_zip(cases.folder / "wine.zip", members))
    cases.add("archive", open_model, cases.file("text.zip", "no zip"))
    cases.add("archive", open_model, cases.folder / "nowhere.zip")
    cases.add("folder", open_model, write_folder(cases.folder / "empty", [Member(name="a")]))
    cases.add("folder", open_model, write_folder(cases.folder / "linked", wine(link("model/link", "/etc/passwd"))))


def add_dependencies(cases: Cases) -> None:
    settings = Settings()
    for text in (
        "a: [b",
        "- a",
        "dependencies: python",
        "dependencies: [3]",
        "dependencies: ['python ==']",
        "dependencies: [python=3.11, {pip: [numpy], conda: []}]",
        "dependencies: [flask=2.0=pypi_0]",
        "{dependencies: [python=3.11], channels: conda-forge}",
    ):
        cases.add("conda", read_conda_file, cases.file("conda.yaml", text), settings)
    cases.add("conda", read_conda_file, cases.folder / "nowhere.yaml", settings)
    for line in ("numpy ==", "-r nowhere.txt", "-r ../outside.txt", "--install-option x", "./package"):
        file = cases.file("requirements.txt", line)
        cases.add("pip", read_requirements, [line], file=file, root=cases.folder)


def add_kubernetes(cases: Cases) -> None:
    def answer(kind: Kind, status: int, message: str, *, method: str = "GET", reason: str = "") -> None:
        body = {"message": message, "reason": reason}
        raise failure(ApiRequest(method=method, kind=kind, namespace="ml", name="wine"), status, body)

    quota = 'jobs.batch "wine" is forbidden: exceeded quota: team'
    rbac = 'User "ann" cannot create resource "jobs" in API group "batch" in the namespace "ml"'
    for kind, method, status, message in (
        (JOBS, "GET", HTTPStatus.UNAUTHORIZED, "Unauthorized"),
        (JOBS, "POST", HTTPStatus.FORBIDDEN, rbac),
        (SECRETS, "DELETE", HTTPStatus.FORBIDDEN, rbac),
        (JOBS, "POST", HTTPStatus.FORBIDDEN, quota),
        (PODS, "POST", HTTPStatus.FORBIDDEN, "violates PodSecurity"),
        (CONFIG_MAPS, "GET", HTTPStatus.NOT_FOUND, 'configmaps "wine" not found'),
        (JOBS, "POST", HTTPStatus.NOT_FOUND, 'namespaces "ml" not found'),
        (JOBS, "PUT", HTTPStatus.CONFLICT, "the object has been modified"),
        (JOBS, "POST", HTTPStatus.UNPROCESSABLE_ENTITY, "spec is invalid"),
        (JOBS, "GET", HTTPStatus.SERVICE_UNAVAILABLE, "etcd is down"),
        (JOBS, "GET", HTTPStatus.FOUND, ""),
    ):
        cases.add("cluster", answer, kind, status, message, method=method)
    cases.add("cluster", answer, JOBS, HTTPStatus.CONFLICT, "", method="POST", reason="AlreadyExists")
    for text in ("engine: docker\nretries: 3\nworkSize: much\n", "a: [b"):
        cases.add("Job settings", JobSettings.from_yaml, text, "settings.yaml")
    cases.add("id", check_id, "", "packaging")
    cases.add("id", check_id, "Docker REST", "integration")
    cases.add("namespace", check_namespace, "ML")
    cases.lines += [
        f"resources: {problem}"
        for own in (
            {"limits": {"memory": "4 GB"}},
            {"requests": {"a b": 1}},
            {"limits": {"cpu": 1}, "requests": {"cpu": 2}},
        )
        for problem in Resources.model_validate(own).problems()
    ]


def test_messages_of_errors_match_the_golden_file(tmp_path: Path) -> None:
    cases = Cases(tmp_path, [])
    for add in (
        add_command_line,
        add_settings,
        add_documents,
        add_requests,
        add_archives,
        add_dependencies,
        add_kubernetes,
    ):
        add(cases)
    check_golden("messages.txt", "\n".join(cases.lines) + "\n")
