"""The oci engine beside Buildah, and what other tools make of its images."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.front import serve_front
from tests.integration.oci import OciHarness, assert_loads_under_its_name, build, digest_of, pip_harness, push
from tests.integration.packaging import PODMAN, RUN_WORDS, PackagingHarness, zip_folder

if TYPE_CHECKING:
    from tests.integration.registry import Registry

pytestmark = pytest.mark.needs("buildah", "skopeo", "podman", "runc", "docker-registry", "htpasswd", "root")

BASE_DOCKERFILE = """FROM localhost/tiny-base:1
COPY there /opt
ENV PATH=/usr/local/bin:/usr/bin:/bin:/base MODEL_LOCATION=/old BASE=of=base
LABEL org.opencontainers.image.title=base kept=yes
EXPOSE 80
VOLUME /volume
STOPSIGNAL SIGINT
WORKDIR /old
USER 4321:4321
HEALTHCHECK CMD ["/bin/true"]
ENTRYPOINT ["/bin/old"]
CMD ["old"]
"""


@pytest.fixture(scope="session")
def bases(
    storage: dict[str, str], tiny_base: str, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Bases in the registry: one with folders at our paths and a full config, in both formats; one behind an index."""
    folder = tmp_path_factory.mktemp("full-base")
    for name in ("odahu/model", "odahu/packages/old"):
        (folder / "there" / name).mkdir(parents=True)
    (folder / "there/odahu/model/old").write_text("the base's")
    (folder / "Dockerfile").write_text(BASE_DOCKERFILE)
    special = folder / "special"
    (special / "opt/odahu").mkdir(parents=True)
    (special / "data/model").mkdir(parents=True)
    (special / "data/model/old").write_text("the base's")
    (special / "opt").chmod(0o711)
    (special / "opt/odahu").chmod(0o2775)
    (special / "data/model").chmod(0o750)
    (special / "opt/odahu/model").symlink_to("../../data/model")
    os.chown(special / "opt", 5, 7)
    with tarfile.open(folder / "special.tar", "w") as archive:
        archive.add(special, ".")
    words = ["--format", "docker", "--timestamp", "1700000000", "--tag", "localhost/full:1"]
    subprocess.run(["buildah", "build", *words, str(folder)], env=storage, check=True, capture_output=True)
    (folder / "Dockerfile").write_text("FROM localhost/tiny-base:1\nADD special.tar /\n")
    words = ["buildah", "build", "--timestamp", "1700000000", "--tag", "localhost/special:1", str(folder)]
    subprocess.run(words, env=storage, check=True, capture_output=True)
    push(storage, "localhost/special:1", registry.host, "bases/special:1")
    push(storage, tiny_base, registry.host, "bases/tiny:1")
    push(storage, "localhost/full:1", registry.host, "bases/full:oci")
    push(storage, "localhost/full:1", registry.host, "bases/full:docker", image_format="v2s2")
    subprocess.run(
        ["buildah", "manifest", "create", "localhost/many:1", tiny_base], env=storage, check=True, capture_output=True
    )
    push(storage, "localhost/many:1", registry.host, "bases/many:1", index=True)
    return {
        "tiny": f"{registry.host}/bases/tiny:1",
        "special": f"{registry.host}/bases/special:1",
        "oci": f"{registry.host}/bases/full:oci",
        "docker": f"{registry.host}/bases/full:docker",
        "index": f"{registry.host}/bases/many:1",
    }


@pytest.fixture
def harness(tmp_path: Path, storage: dict[str, str], bases: dict[str, str]) -> PackagingHarness:
    return pip_harness(tmp_path, storage, bases["tiny"])


class Layout:
    """An image in an OCI layout, read as a container runtime reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = json.loads((folder / "index.json").read_bytes())
        self.manifest = json.loads(self.blob(self.index["manifests"][0]["digest"]).read_bytes())
        self.config = json.loads(self.blob(self.manifest["config"]["digest"]).read_bytes())

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest.replace(":", "/")

    def files(self) -> dict[str, tuple[object, ...]]:
        """Every path with its kind, mode, owner and content, the layers laid over each other."""
        root: dict[str, tuple[object, ...]] = {}
        for layer in self.manifest["layers"]:
            with tarfile.open(self.blob(layer["digest"])) as archive:
                for member in archive:
                    path = os.path.normpath(member.name).lstrip("/")
                    folder, _, name = path.rpartition("/")
                    if name.startswith(".wh."):
                        gone = f"{folder}/{name[4:]}".lstrip("/")
                        root = {each: facts for each, facts in root.items() if f"{each}/".find(f"{gone}/") != 0}
                        continue
                    stream = archive.extractfile(member) if member.isreg() else None
                    content = hashlib.sha256(stream.read()).hexdigest() if stream else member.linkname
                    root[path] = (member.type, member.mode & 0o7777, member.uid, member.gid, content)
        root.pop(".", None)
        return root


@pytest.mark.parametrize("integration", ["docker-rest", "docker-cli"])
@pytest.mark.parametrize("base", ["tiny", "special", "oci", "docker", "index"])
def test_the_same_files_and_config_as_buildahs(
    harness: PackagingHarness, bases: dict[str, str], base: str, integration: str
) -> None:
    harness.base = bases[base]
    (harness.model / "odahuflow_model/program").write_text("#!/bin/sh\n")
    (harness.model / "odahuflow_model/program").chmod(0o700)
    (harness.model / "odahuflow_model/link").symlink_to("program")
    (harness.model / "odahuflow_model/empty").mkdir(mode=0o700)
    images = {}
    for engine in ("oci", "buildah"):
        build(harness, f"oci:{engine}", "--engine", engine, "--packager", integration)
        images[engine] = Layout(harness.folder / engine)
    oci, buildah = images["oci"], images["buildah"]
    assert oci.files() == buildah.files()
    for image in (oci, buildah):  # Buildah writes a variable that is set anew last, Docker and we where it was
        image.config["config"]["Env"].sort()
    assert oci.config["config"] == buildah.config["config"]
    assert {oci.config[name] == buildah.config[name] for name in ("architecture", "os")} == {True}
    assert oci.config["rootfs"]["diff_ids"][:-3] == buildah.config["rootfs"]["diff_ids"][:-3]


def test_a_platform_of_an_index(harness: PackagingHarness, bases: dict[str, str]) -> None:
    harness.base = bases["index"]
    build(harness, "oci:layout", "--platform", "linux/amd64")
    assert Layout(harness.folder / "layout").config["architecture"] == "amd64"
    words = ("-a", f"dockerfileBaseImage={harness.base}", "--output", "oci:other", "--platform", "linux/arm64")
    ran = harness.packager("build", str(harness.model), *words)
    assert ran.code == 33, ran.err
    assert "has no image" in ran.err
    assert "for linux/arm64" in ran.err
    assert not (harness.folder / "other").exists()


def test_a_base_in_a_layout_and_in_its_archive(
    harness: PackagingHarness, storage: dict[str, str], registry: Registry
) -> None:
    for transport in ("oci:base", "oci-archive:base.tar"):
        words = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{harness.base}", f"{transport}:1"]
        subprocess.run(words, cwd=harness.folder, env=storage, check=True, capture_output=True)
    images = []
    for number, base in enumerate(
        (harness.base, "oci:base", "oci:base:1", "oci-archive:base.tar", "oci-archive:base.tar:1")
    ):
        harness.base = base
        build(harness, f"oci:layout-{number}")
        images.append(Layout(harness.folder / f"layout-{number}"))
    assert len({json.dumps(image.config["rootfs"]) for image in images}) == 1
    assert len({json.dumps(image.index["manifests"][0]["digest"]) for image in images[1:]}) == 1
    assert str(harness.folder) not in json.dumps([images[1].config, images[1].manifest])
    ran = build(harness, f"docker://{registry.host}/models/layout-base:1")
    assert ran.out.strip().endswith(str(registry.digest("models/layout-base", "1")))


def test_a_base_with_onbuild_is_refused_before_anything_is_made(
    harness: PackagingHarness, storage: dict[str, str], registry: Registry
) -> None:
    (harness.folder / "Dockerfile").write_text("FROM localhost/tiny-base:1\nONBUILD COPY x /x\n")
    words = ["--format", "docker", "--tag", "localhost/onbuild:1"]
    subprocess.run(["buildah", "build", *words, str(harness.folder)], env=storage, check=True, capture_output=True)
    push(storage, "localhost/onbuild:1", registry.host, "bases/onbuild:1", image_format="v2s2")
    base = f"dockerfileBaseImage={registry.host}/bases/onbuild:1"
    ran = harness.packager("build", str(harness.model), "-a", base, "--output", "oci:layout")
    assert ran.code == 40, ran.err
    assert "ONBUILD COPY x /x" in ran.err
    assert "--engine buildah" in ran.err
    assert "Preparing the model's dependencies" not in ran.err
    assert not (harness.folder / "layout").exists()


OUTPUTS = [
    "docker://{host}/outputs/wine:1",
    "oci:{folder}/layout",
    "oci-archive:{folder}/a.tar",
    "docker-archive:{folder}/a.tar",
]


@pytest.mark.parametrize("image_format", ["oci", "docker"])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("base", ["oci", "docker"])
def test_other_tools_take_every_output(
    bases: dict[str, str],
    registry: Registry,
    storage: dict[str, str],
    tmp_path: Path,
    base: str,
    output: str,
    image_format: str,
) -> None:
    (tmp_path / "work").mkdir()
    to = output.format(host=registry.host, folder=tmp_path)
    harness = OciHarness(tmp_path, {"image_format": image_format})
    files: dict[str, bytes | Path] = {"model": b"the model", "large": os.urandom(3 << 20)}
    built = harness.build(bases[base], to, files, entrypoint=("/bin/cat",), cmd=("/opt/odahu/model",), user="65534")
    name = f"{to}:r.io/models/wine:1" if to.startswith("oci:") else to
    tls = ["--tls-verify=false"] if to.startswith("docker://") else []
    inspected = json.loads(run(storage, "skopeo", "inspect", *tls, name))
    if not to.startswith("docker-archive:"):  # skopeo makes a manifest of its own for it
        assert inspected["Digest"] == built.digest
    raw = json.loads(run(storage, "skopeo", "inspect", "--raw", *tls, name))
    if not to.startswith("docker-archive:"):
        assert ("docker" in raw["mediaType"]) == (image_format == "docker" and to.startswith("docker://"))
    ran = run(storage, *PODMAN, "run", "--rm", *tls, *RUN_WORDS, name)
    assert ran == "the model"
    if "archive" in to:
        forms = ("docker-archive", "oci-archive") if to.startswith("oci-archive:") else ("docker-archive",)
        assert_loads_under_its_name(storage, tmp_path / "a.tar", "r.io/models/wine:1", *forms)


def run(environ: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_inputs_give_the_same_digest_wherever_and_whenever(
    harness: PackagingHarness, registry: Registry
) -> None:
    archive = zip_folder(harness.model, harness.folder / "wine.zip")
    to = f"docker://{registry.host}/models/same"
    words = ("-a", f"dockerfileBaseImage={harness.base}", "--output")
    first = digest_of(harness.packager("build", str(archive), *words, f"{to}:1"))
    assert first == registry.digest("models/same", "1")
    assert digest_of(harness.packager("build", str(archive), *words, f"{to}:2")) == first
    assert digest_of(harness.packager("build", str(archive), *words, f"{to}:3", "--refresh-environment")) == first

    elsewhere = harness.folder / "elsewhere"
    for name in ("cwd", "tmp", "work", "cache"):
        (elsewhere / name).mkdir(parents=True)
    other = shutil.copy(archive, elsewhere / "other.zip")
    os.utime(other, (1, 1))
    environ = {
        **harness.environ,
        "TMPDIR": str(elsewhere / "tmp"),
        "PACKAGER_WORK_DIR": str(elsewhere / "work"),
        "PACKAGER_CACHE_DIR": str(elsewhere / "cache"),
        "PACKAGER_ENVIRONMENT_CACHE": "false",
        "TZ": "Asia/Tokyo",
    }
    environ.pop("SOURCE_DATE_EPOCH", None)
    command = [sys.executable, "-m", "packager", "build", other, *words, f"{to}:4"]
    if (clock := shutil.which("faketime")) is not None:
        command = [clock, "2031-05-06 07:08:09", *command]
    done = subprocess.run(
        command, cwd=elsewhere / "cwd", env=environ, umask=0o077, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(first)
    assert registry.digest("models/same", "4") == first


def test_source_date_epoch(harness: PackagingHarness) -> None:
    harness.environ["SOURCE_DATE_EPOCH"] = "1234567890"
    digests = []
    for number in (1, 2):
        build(harness, f"oci:layout-{number}")
        for path in harness.model.rglob("*"):
            os.utime(path, (number * 10**9, number * 10**9))  # of no account then
        digests.append(Layout(harness.folder / f"layout-{number}").index["manifests"][0]["digest"])
    image = Layout(harness.folder / "layout-1")
    assert image.config["created"] == image.config["config"]["Labels"]["org.opencontainers.image.created"]
    assert image.config["created"] == "2009-02-13T23:31:30Z"
    with tarfile.open(image.blob(image.manifest["layers"][-1]["digest"])) as archive:
        assert {member.mtime for member in archive} == {1234567890}
    assert digests[0] == digests[1]


def put_large(harness: PackagingHarness, sizes: dict[str, int]) -> Path:
    """Make the model a zip with large files that don't compress: a random megabyte, again and again."""
    archive = zip_folder(harness.model, harness.folder / "large.zip")
    piece = os.urandom(1 << 20)
    with zipfile.ZipFile(archive, "a") as stream:
        for name, size in sizes.items():
            with stream.open(zipfile.ZipInfo(name), "w", force_zip64=True) as file:
                for _ in range(size):
                    file.write(piece)
    return archive


def test_repackaging_sends_the_model_and_little_more(harness: PackagingHarness, registry: Registry) -> None:
    size = 5 << 20
    with serve_front(registry) as front:
        harness.base = harness.base.replace(registry.host, front.host)
        for version in (1, 2):
            (harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(size))
            front.forget()
            ran = build(harness, f"docker://{front.host}/models/again:{version}")
        assert size < front.sent < size + (64 << 10)
        assert front.count("GET", "/blobs/") < 5
    assert digest_of(ran) == registry.digest("models/again", "2")


def test_only_the_layer_of_a_file_that_has_changed_is_sent(harness: PackagingHarness, registry: Registry) -> None:
    with serve_front(registry) as front:
        harness.base = harness.base.replace(registry.host, front.host)
        for name in ("a", "b"):
            (harness.model / f"odahuflow_model/{name}.bin").write_bytes(os.urandom(40 << 20))
        for version in (1, 2):
            (harness.model / "odahuflow_model/c.bin").write_bytes(os.urandom(40 << 20))
            (harness.model / "odahuflow_model/version").write_text(str(version))
            front.forget()
            build(harness, f"docker://{front.host}/models/shards:{version}")
        assert (40 << 20) < front.sent < (40 << 20) + (64 << 10)
    layers = [registry.manifest("models/shards", str(version))["layers"] for version in (1, 2)]
    assert [old["digest"] == new["digest"] for old, new in zip(*layers, strict=True)][-5:] == [
        True,
        True,
        True,
        False,
        False,
    ]


# ru_maxrss is in KiB; of the children, as a process of its own asks, it's the largest one's.
MEASURE = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "packager", *sys.argv[1:]])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


@pytest.mark.timeout(600)
def test_memory(harness: PackagingHarness, registry: Registry) -> None:
    to = f"docker://{registry.host}/models/memory:1"
    build(harness, to)
    archive = put_large(harness, {"odahuflow_model/weights.bin": 500})
    words = ["build", str(archive), "-a", f"dockerfileBaseImage={harness.base}", "--output", to]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *words],
        env=harness.environ,
        cwd=harness.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unchanged dependencies" in done.stderr
    peak = int(done.stdout.split()[-1]) << 10
    assert peak < 150 << 20, f"{peak >> 20} MiB"


@pytest.mark.parametrize("stalled", [False, True])
def test_a_signal_during_the_upload(harness: PackagingHarness, registry: Registry, stalled: bool) -> None:
    with serve_front(registry) as front:
        harness.base = harness.base.replace(registry.host, front.host)
        to = f"docker://{front.host}/models/stopped-{stalled}:1".lower()
        before = digest_of(build(harness, to))
        (harness.model / "odahuflow_model/weights.bin").write_bytes(os.urandom(60 << 20))
        front.forget()
        if stalled:
            front.stalled.set()
        else:
            front.slow = True
        words = ("-a", f"dockerfileBaseImage={harness.base}", "--output", to, "--termination-log", "log")
        process = harness.start("build", str(harness.model), *words)
        assert front.reached.wait(60)
        asked = front.count("DELETE", "/blobs/uploads/")  # whether we may push
        process.terminate()
        out, err = process.communicate(timeout=25)  # the grace of a pod is 30 s
        assert process.returncode == 143, err
        assert out == ""
        assert json.loads((harness.folder / "log").read_text())["error"]["code"] == "interrupted"
        if not stalled:  # what hangs can't be called off; the registry forgets it in time
            assert front.count("DELETE", "/blobs/uploads/") - asked == front.count("PATCH", "") > 0
    assert registry.digest(f"models/stopped-{stalled}".lower(), "1") == before
    assert list(harness.work.iterdir()) == []
    assert list(harness.processes()) == []
