"""Layers written by us, beside what Buildah makes of the same plan; and the tools that read layers."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from packager.image.context import write_context
from packager.image.layers.blob import LayerBlob, plan_blobs
from packager.image.plan import BaseImage, Content, ImageConfig, ImagePlan, Layer
from packager.image.planner import make_plan
from packager.logs.progress import SilentReporter
from packager.models.reference import Reference
from packager.settings import Settings
from packager.sources.artifact import ArtifactLimits, open_artifact
from tests.unit.archives import Member, link, wine, write_zip
from tests.unit.builders import prepared, request

if TYPE_CHECKING:
    from packager.image.layers.blob import Setting

pytestmark = pytest.mark.needs("buildah", "skopeo")

Row = tuple[str, int, int, int, str, str]  # type, mode, uid, gid, link's target, SHA-256


def staged_plan(work: Path, monkeypatch: pytest.MonkeyPatch) -> ImagePlan:
    """A plan with every kind of content: odd names and modes, links, large files in and out of the zip."""
    monkeypatch.setattr("packager.image.planner.LARGE_FILE", 5 << 20)
    environment = work / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin/python").write_text("#!")
    (environment / "bin/python").chmod(0o4711)
    (environment / "bin/python3").symlink_to("./python")
    (environment / "private").mkdir(mode=0o700)
    (environment / "private/é name\\ $x").write_text("odd")
    (environment / "private/twin").hardlink_to(environment / "bin/python")
    (environment / ("long" * 50)).write_text("long")
    (environment / ("deep" * 30)).mkdir()
    (environment / ("deep" * 30) / ("name" * 40)).symlink_to("x" * 150)
    (environment / "empty").mkdir(mode=0o777)
    members = [
        Member(name="model/weights.bin", data=bytes(range(256)) * 24_000, deflate=True),
        Member(name="model/middle.bin", data=bytes(4_500_000), mode=0o100755),
        Member(name="other/shard.bin", data=bytes(range(255, -1, -1)) * 22_000),
        Member(name="model/empty/", mode=0o040700),
        link("model/latest", "../other/shard.bin"),
    ]
    artifact = open_artifact(
        write_zip(work / "model.zip", wine(*members)),
        work,
        limits=ArtifactLimits.from_settings(Settings()),
        reporter=SilentReporter(),
        lazy=True,
    )
    assert set(artifact.packed) == {"model/weights.bin", "model/middle.bin", "other/shard.bin"}
    scratch = BaseImage(reference=Reference.parse("localhost/scratch-like:1"))
    ready = prepared(work, model=artifact.root, sizes=artifact.sizes, packed=artifact.packed, base=scratch)
    return make_plan(request(), ready)


def mixed_owners() -> ImagePlan:
    """Layers of several owners, one in folders of another."""

    def layer(name: str, uid: int, *paths: str) -> Layer:
        contents = tuple(Content(source=path.encode(), destination=PurePosixPath(path)) for path in paths)
        return Layer(name=name, contents=contents, uid=uid, gid=uid + 1)

    return ImagePlan(
        base=BaseImage(reference=Reference.parse("localhost/scratch-like:1")),
        steps=(
            layer("one", 7, "/opt/a/b/f", "/opt/a/c/g"),
            layer("two", 0, "/opt/a/b/h", "/opt/a/b/d/i"),
            layer("three", 9, "/opt/a/b/f", "/srv/x"),
        ),
        config=ImageConfig(entrypoint=("/x",)),
    )


@dataclass
class Merged:
    """A root file system, as the layers that lie on each other give it."""

    rows: dict[str, Row]

    @classmethod
    def of(cls, tars: list[bytes]) -> Merged:
        rows: dict[str, Row] = {}
        for data in tars:
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() or member.islnk() else None
                    kind = "f" if file else "d" if member.isdir() else "l" if member.issym() else "?"
                    digest = hashlib.sha256(file.read()).hexdigest() if file else ""
                    target = member.linkname if member.issym() else ""
                    rows[member.name] = (kind, member.mode & 0o7777, member.uid, member.gid, target, digest)
        return cls(rows)


def build(plan: ImagePlan, folder: Path, environ: dict[str, str]) -> list[bytes]:
    """Build a plan with Buildah on an empty base; give the tars of its layers."""
    context = write_context(plan, folder / "context", ours=folder)
    text = (context / "Dockerfile").read_text()
    first = text.splitlines()[0]
    (context / "Dockerfile").write_text(text.replace(first, "FROM scratch"))
    words = ["--layers", "--format", "oci", "--timestamp", "315532800", "--iidfile", str(folder / "id")]
    subprocess.run(["buildah", "build", *words, str(context)], env=environ, check=True, capture_output=True)
    image = (folder / "id").read_text()
    layout = folder / "layout"
    subprocess.run(["buildah", "push", image, f"oci:{layout}:x"], env=environ, check=True, capture_output=True)
    index = json.loads((layout / "index.json").read_bytes())
    manifest: dict[str, Any] = json.loads(stored(layout, index["manifests"][0]))
    return [stored(layout, layer) for layer in manifest["layers"]]


def stored(layout: Path, descriptor: dict[str, Any]) -> bytes:
    return Path(layout / "blobs/sha256" / str(descriptor["digest"]).partition(":")[2]).read_bytes()


def store(layout: Path, data: bytes, media_type: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def store_image(layout: Path, blobs: list[LayerBlob]) -> None:
    """Put an image of nothing but these layers into a layout."""
    layers = [store(layout, b"".join(blob.stream()), blob.media_type) for blob in blobs]
    facts = [made.info for made in blobs if made.info is not None]
    assert [layer["digest"] for layer in layers] == [fact.digest for fact in facts]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [fact.diff_id for fact in facts]},
        "config": {},
    }
    described = store(layout, json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": manifest_type, "config": described, "layers": layers}
    entry = store(layout, json.dumps(manifest).encode(), manifest_type)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@pytest.mark.parametrize("kind", ["model", "owners"])
def test_buildah_makes_the_same_files_of_a_plan(
    kind: str, tmp_path: Path, storage: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = staged_plan(tmp_path, monkeypatch) if kind == "model" else mixed_owners()
    blobs = plan_blobs(plan)
    ours = Merged.of([b"".join(made.stream()) for made in blobs])
    theirs = Merged.of(build(plan, tmp_path, storage))
    assert ours.rows == theirs.rows
    assert len(ours.rows) > 10
    if kind == "model":
        assert [made.name for made in blobs] == ["environment", "runtime", "model-1", "model-2", "model"]
        assert ours.rows["opt/odahu/model/model/weights.bin"][0] == "f"


@pytest.mark.parametrize("setting", ["auto", "gzip", "zstd", "none"])
def test_skopeo_and_buildah_take_the_layers(
    setting: Setting, tmp_path: Path, storage: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = staged_plan(tmp_path, monkeypatch)
    store_image(tmp_path / "layout", plan_blobs(plan, setting))
    place = f"oci:{tmp_path / 'layout'}:x"
    done = subprocess.run(["skopeo", "inspect", place], env=storage, check=True, capture_output=True)
    assert len(json.loads(done.stdout)["Layers"]) == 5
    # Unpacking checks every diff id.
    made = subprocess.run(["buildah", "from", place], env=storage, check=True, capture_output=True, text=True)
    container = made.stdout.strip()
    try:
        mounted = subprocess.run(
            ["buildah", "mount", container], env=storage, check=True, capture_output=True, text=True
        )
        root = Path(mounted.stdout.strip())
        assert (root / "opt/odahu/model/other/shard.bin").read_bytes() == bytes(range(255, -1, -1)) * 22_000
        assert (root / "opt/odahu/model/model/middle.bin").stat().st_mode & 0o7777 == 0o755
        assert (root / "opt/conda/envs/wine/private/é name\\ $x").read_text() == "odd"
    finally:
        subprocess.run(["buildah", "rm", container], env=storage, check=True, capture_output=True)


def test_gnu_tar_lists_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for made in plan_blobs(staged_plan(tmp_path, monkeypatch), "none"):
        data = b"".join(made.stream())
        done = subprocess.run(["tar", "--list", "--quoting-style=literal"], input=data, check=True, capture_output=True)
        assert done.stderr == b""
        assert [line.rstrip("/") for line in done.stdout.decode().splitlines()] == [
            entry.path for entry in made.entries
        ]
