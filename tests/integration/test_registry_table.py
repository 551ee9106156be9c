"""The same pushes against every registry: real ones, and fakes that answer as hosted ones are reported to."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import tarfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from packager.errors import PackagerError, RegistryAuthError, RegistryError
from packager.models.reference import Destination, Reference
from tests.integration import registry_fakes as fakes
from tests.integration.front import FaultProxy, serve_front
from tests.integration.oci import HOME, OciHarness
from tests.integration.registry import Registry, serve_crane_registry, serve_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from packager.engines import BuiltImage

pytestmark = pytest.mark.needs("buildah", "skopeo", "docker-registry", "htpasswd")

LARGE = 6 << 20
CUT = 3 << 20


def go_program(name: str) -> str:
    from tests.conftest import go_program as find  # noqa: PLC0415  (pytest has loaded it under another name)

    return str(find(name))


@contextmanager
def serve_distribution(folder: Path) -> Iterator[Registry]:
    with serve_registry(folder, with_password=True, program=go_program("distribution")) as registry:
        yield registry


@contextmanager
def serve_crane(folder: Path) -> Iterator[Registry]:
    with serve_crane_registry(folder, go_program("crane")) as registry:
        yield registry


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of the table.

    Attributes:
        needs: The program that it is.
        mounts: Whether layers of another repository aren't sent.
        resumes: Whether an upload that was cut off goes on where it was; None where that depends on when the server
            sees the cut.
    """

    serve: Callable[[Path], AbstractContextManager[Registry]]
    needs: tuple[str, ...] = ()
    mounts: bool = True
    resumes: bool | None = None


def fake(quirks: fakes.Quirks) -> Callable[[Path], AbstractContextManager[Registry]]:
    return partial(fakes.serve_fake, quirks=quirks)


REAL = {
    "docker-registry": TableRow(serve=partial(serve_registry, with_password=True)),
    "distribution": TableRow(serve=serve_distribution, needs=("distribution",)),
    "go-containerregistry": TableRow(serve=serve_crane, needs=("crane",)),
}
QUIRKS = {
    "ECR": fakes.ECR,
    "Harbor": fakes.HARBOR,
    "GitLab": fakes.GITLAB,
    "Quay": fakes.QUAY,
    "Artifactory": fakes.ARTIFACTORY,
    "Docker Hub": fakes.DOCKER_HUB,
}
FAKES = {
    name: TableRow(serve=fake(quirks), mounts=not quirks.last_scope, resumes=quirks.upload_state == "range")
    for name, quirks in QUIRKS.items()
}
SERVERS = REAL | FAKES


def parameters(rows: dict[str, TableRow]) -> list[object]:
    return [pytest.param(row, id=name, marks=pytest.mark.needs(*row.needs)) for name, row in rows.items()]


@dataclass(frozen=True, kw_only=True)
class Pushed:
    path: str
    tag: str | None
    digest: str
    files: dict[str, bytes]

    def reference(self, host: str) -> str:
        return f"{host}/{self.path}" + (f":{self.tag}" if self.tag else f"@{self.digest}")


@dataclass
class PushHarness:
    """A registry with a counting front before it, and the engine that pushes there.

    Attributes:
        registry: What answers at the front's address.
        pushed: The images that should be there, by path.
    """

    row: TableRow
    registry: Registry
    front: FaultProxy
    harness: OciHarness
    base: str
    pushed: dict[str, Pushed] = field(default_factory=dict)

    def push(self, path: str, files: dict[str, bytes], *, tag: str | None = "1", base: str | None = None) -> BuiltImage:
        reference = Reference(host=self.registry.host, path=path, tag=tag)
        built = self.harness.build(base or self.base, Destination(reference=reference), {**files})
        self.pushed[path] = Pushed(path=path, tag=tag, digest=built.digest, files=files)
        return built


@pytest.fixture(scope="session")
def base_layout(storage: dict[str, str], tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tests' small base image as an OCI layout, so that no registry is needed to have it."""
    layout = f"oci:{tmp_path_factory.mktemp('base-layout')}:1"
    subprocess.run(["buildah", "push", "--quiet", tiny_base, layout], env=storage, check=True, capture_output=True)
    return layout


@contextmanager
def open_harness(row: TableRow, folder: Path, base: str) -> Iterator[PushHarness]:
    (folder / "engine" / "work").mkdir(parents=True)
    with row.serve(folder / "registry") as behind, serve_front(behind) as front:
        registry = replace(behind, host=front.host)
        connection = registry.connection() if registry.username else None
        harness = OciHarness(folder / "engine", connection=connection)
        yield PushHarness(row=row, registry=registry, front=front, harness=harness, base=base)


def push_new(harness: PushHarness) -> None:
    harness.push("team/new", {"model": b"model"})


def push_unchanged(harness: PushHarness) -> None:
    files = {"model": b"model" * 1000, "small": b"x"}
    built = harness.push("team/same", files)
    harness.front.forget()
    assert harness.push("team/same", files).digest == built.digest
    sent = harness.front.count("PATCH", "/team/same/")
    assert sent == 0, harness.front.asked


def push_mounted(harness: PushHarness) -> None:
    harness.push("team/source", {"model": b"model"})
    harness.front.forget()
    harness.push("team/mounted", {"other": b"other"}, base=f"{harness.registry.host}/team/source:1")
    sent = harness.front.count("PATCH", "/team/mounted/")
    assert (sent == 2) == harness.row.mounts, harness.front.asked  # the layer and the config


def push_resumed(harness: PushHarness) -> None:
    harness.push("team/resumed", {"small": b"x"})
    harness.front.forget()
    harness.front.cuts = [CUT]
    harness.push("team/resumed", {"model": os.urandom(LARGE)})
    assert harness.front.count("PATCH", "/team/resumed/") >= 3  # what is cut off, what goes on, and the config
    if harness.row.resumes is not None:
        assert harness.row.resumes == (harness.front.sent < LARGE + CUT // 2), harness.front.sent


def push_layers(harness: PushHarness) -> None:
    sizes = (0, 1, 1000, 70_000, 1 << 20, 3 << 20)
    harness.push("team/deeper/path/layers", {f"file{size}": os.urandom(size) for size in sizes})


def push_over_a_tag(harness: PushHarness) -> None:
    first = harness.push("team/over", {"model": b"one"})
    second = harness.push("team/over", {"model": b"two"})
    assert first.digest != second.digest


def push_by_digest(harness: PushHarness) -> None:
    harness.push("team/digest", {"model": b"model"}, tag=None)


PUSHES = {
    "new": push_new,
    "unchanged": push_unchanged,
    "mounted": push_mounted,
    "resumed": push_resumed,
    "several layers": push_layers,
    "over a tag": push_over_a_tag,
    "by digest": push_by_digest,
}


def login_file(registry: Registry, folder: Path) -> Path:
    """Write a docker configuration for the other tools."""
    auth = base64.b64encode(f"{registry.username}:{registry.password}".encode()).decode()
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {registry.host: {"auth": auth}} if registry.username else {}}))
    return path


def read_by_skopeo(harness: PushHarness, folder: Path) -> None:
    """Copy every image; skopeo checks each blob against its digest."""
    logins = ["--src-authfile", str(login_file(harness.registry, folder))]
    for image in harness.pushed.values():
        copied = folder / "copied" / image.digest.partition(":")[2]
        copied.mkdir(parents=True, exist_ok=True)
        source = f"docker://{image.reference(harness.registry.host)}"
        run(["skopeo", "copy", "--quiet", "--src-tls-verify=false", *logins, source, f"dir:{copied}"])
        assert f"sha256:{hashlib.sha256((copied / 'manifest.json').read_bytes()).hexdigest()}" == image.digest


def read_by_crane(harness: PushHarness, folder: Path) -> None:
    """Let crane unpack every image, and look at the files that were put into it."""
    environ = {**os.environ, "DOCKER_CONFIG": str(login_file(harness.registry, folder).parent)}
    crane = go_program("crane")
    for image in harness.pushed.values():
        reference = image.reference(harness.registry.host)
        assert run([crane, "digest", reference], environ).strip() == image.digest
        run([crane, "export", reference, str(folder / "root.tar")], environ)
        with tarfile.open(folder / "root.tar") as archive:
            for name, data in image.files.items():
                stream = archive.extractfile(f"{HOME}/{name}".lstrip("/"))
                assert stream is not None
                assert stream.read() == data


def read_by_conformance_suite(harness: PushHarness, folder: Path) -> None:
    """Let OCI's suite, in its mode for registries that can only be read, ask for every image and its blobs."""
    for image in harness.pushed.values():
        manifest = harness.registry.manifest(image.path, image.digest)
        blobs = {blob["digest"] for blob in (manifest["config"], *manifest["layers"])}
        settings = {
            "REGISTRY": harness.registry.host,
            "TLS": "disabled",
            "REPO1": image.path,
            "USERNAME": harness.registry.username,
            "PASSWORD": harness.registry.password,
            **dict.fromkeys(("API_PUSH", "API_BLOBS_DELETE", "API_MANIFESTS_DELETE", "API_TAGS_DELETE"), "false"),
            "RO_DATA_MANIFESTS": image.digest,
            "RO_DATA_BLOBS": " ".join(blobs),
            **({"RO_DATA_TAGS": image.tag} if image.tag else {}),
            "FILTER_TEST": "OCI Conformance Test/read-only",
            "RESULTS_DIR": str(folder / "conformance"),
        }
        environ = {**os.environ, **{f"OCI_{name}": value for name, value in settings.items()}}
        # Its exit code says nothing: the pinned version prints its results, then crashes writing them to a file.
        ran = subprocess.run([go_program("conformance")], env=environ, check=False, capture_output=True, text=True)
        results = Counter(re.findall(r"OCI Conformance Test/read-only/(head/[\w-]+|pull/[\w-]+): (\w+)", ran.stdout))
        assert results == {
            ("head/manifest-head-by-digest", "Pass"): 1,
            ("pull/manifest-by-digest", "Pass"): 1,
            ("head/blob-head", "Pass"): len(blobs),
            ("pull/blob-get", "Pass"): len(blobs),
            **({("head/manifest-head-by-tag", "Pass"): 1, ("pull/manifest-by-tag", "Pass"): 1} if image.tag else {}),
        }, ran.stdout


def run(words: list[str], environ: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, env=environ, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize("push", [pytest.param(push, id=name) for name, push in PUSHES.items()])
@pytest.mark.parametrize("row", parameters(SERVERS))
def test_pushed_image_is_read_by_skopeo(
    row: TableRow, push: Callable[[PushHarness], None], base_layout: str, tmp_path: Path
) -> None:
    with open_harness(row, tmp_path, base_layout) as harness:
        push(harness)
        read_by_skopeo(harness, tmp_path)


@pytest.mark.needs("crane", "conformance")
@pytest.mark.parametrize("row", parameters(SERVERS))
def test_pushed_image_is_read_by_crane_and_the_conformance_suite(
    row: TableRow, base_layout: str, tmp_path: Path
) -> None:
    with open_harness(row, tmp_path, base_layout) as harness:
        for push in PUSHES.values():
            push(harness)
        read_by_crane(harness, tmp_path)
        if row in REAL.values():  # what it would find in a fake is ours
            read_by_conformance_suite(harness, tmp_path)


@pytest.mark.parametrize("quirks", [pytest.param(quirks, id=name) for name, quirks in QUIRKS.items()])
def test_skopeo_pushes_to_the_fake_too(quirks: fakes.Quirks, base_layout: str, tmp_path: Path) -> None:
    """A fake asks for nothing that a real registry doesn't; that skopeo gives up at the first 429 is another matter."""
    with fakes.serve_fake(tmp_path, replace(quirks, limits=())) as registry:
        logins = ["--dest-authfile", str(login_file(registry, tmp_path))]
        to = f"docker://{registry.host}/team/skopeo:1"
        run(["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *logins, base_layout, to])


def test_redirected_upload_is_sent_to_the_other_host(base_layout: str, tmp_path: Path) -> None:
    with open_harness(TableRow(serve=fake(fakes.REDIRECTED)), tmp_path, base_layout) as harness:
        push_layers(harness)
        read_by_skopeo(harness, tmp_path)
        assert harness.front.count("PATCH", "/") == 0


@pytest.mark.parametrize(
    ("quirks", "error", "says"),
    [
        pytest.param(fakes.ECR_IMMUTABLE, RegistryError, "TAG_INVALID", id="ECR"),
        pytest.param(fakes.HARBOR_IMMUTABLE, RegistryError, "The tag is immutable", id="Harbor"),
        pytest.param(fakes.DOCKER_HUB_IMMUTABLE, RegistryAuthError, "DENIED", id="Docker Hub"),
        pytest.param(fakes.ARTIFACTORY_WITHOUT_DELETE, RegistryAuthError, "MANIFEST_INVALID", id="Artifactory"),
    ],
)
def test_refused_overwrite_names_the_reason_and_keeps_the_tag(
    quirks: fakes.Quirks, error: type[PackagerError], says: str, base_layout: str, tmp_path: Path
) -> None:
    with open_harness(TableRow(serve=fake(quirks)), tmp_path, base_layout) as harness:
        harness.push("team/wine", {"model": b"one"})
        with pytest.raises(error) as caught:
            harness.push("team/wine", {"model": b"two"})
        assert says in caught.value.message
        read_by_skopeo(harness, tmp_path)


def test_same_image_under_an_immutable_tag_succeeds(base_layout: str, tmp_path: Path) -> None:
    with open_harness(TableRow(serve=fake(fakes.ECR_IMMUTABLE)), tmp_path, base_layout) as harness:
        first = harness.push("team/wine", {"model": b"one"})
        assert harness.push("team/wine", {"model": b"one"}) == first


def test_refused_oci_manifest_names_the_setting(base_layout: str, tmp_path: Path) -> None:
    with open_harness(TableRow(serve=fake(fakes.QUAY_WITHOUT_OCI)), tmp_path, base_layout) as harness:
        with pytest.raises(RegistryError) as caught:
            harness.push("team/wine", {"model": b"model"})
        assert "PACKAGER_IMAGE_FORMAT=docker" in f"{caught.value.message} {caught.value.hint}"
        harness.harness.settings["image_format"] = "docker"
        harness.push("team/wine", {"model": b"model"})
        read_by_skopeo(harness, tmp_path)


@pytest.mark.parametrize("row", parameters(FAKES))
def test_wrong_password_is_named(row: TableRow, base_layout: str, tmp_path: Path) -> None:
    with open_harness(row, tmp_path, base_layout) as harness:
        harness.harness.connection = harness.registry.connection(password="wr0ng")
        with pytest.raises(RegistryAuthError, match=r"credentials of user 'packager'") as caught:
            harness.push("team/wine", {"model": b"model"})
        assert "wr0ng" not in f"{caught.value.message} {caught.value.hint}"
