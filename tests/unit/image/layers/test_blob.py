from __future__ import annotations

import gzip
import hashlib
import os
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest

from packager.errors import BuildError
from packager.image.layers.blob import BlobInfo, LayerBlob, plan_blobs
from packager.image.layers.compression import Compression
from packager.image.layers.tar import tar_chunks
from packager.image.plan import Content, ImageConfig, ImagePlan, Layer
from tests.unit.builders import base

if TYPE_CHECKING:
    from packager.image.layers.blob import MediaTypes, Setting

FILES = {"b/ünï": b"1", "b/long-" + "x" * 200: b"2", "a.py": b"print()\n" * 300_000, "Z": b""}


def stage(folder: Path, names: list[str], *, time: int) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FILES[name])
        os.utime(path, (time, time))
    (folder / "link").symlink_to("b/../a.py")
    (folder / "a.py").chmod(0o700)
    return folder


def plan_of(source: Path) -> ImagePlan:
    layer = Layer(name="model", contents=(Content(source=source, destination=PurePosixPath("/opt/odahu/model")),))
    return ImagePlan(base=base(), steps=(layer,), config=ImageConfig())


def sent(blob: LayerBlob) -> tuple[bytes, BlobInfo]:
    data = b"".join(blob.stream())
    assert blob.info is not None
    return data, blob.info


# Made once and written here: whatever changes them makes every layer of every image new.
DIFF_ID = "sha256:b791acd28b4c1198359bf5bf3759de3f51b022629a7ce9035b4de26812b399ff"
GOLDEN = {
    "none": DIFF_ID,
    "gzip": "sha256:228464f64427e3c5df15a25e6d8b5e0ac1be2d4505f0b5155856181ab72f48bf",
    "zstd": "sha256:33379cf3245f0ed040640d0325023897d289a2330b3bed27616c568e14bffce1",
}


@pytest.mark.parametrize("setting", GOLDEN)
def test_the_digest_depends_on_the_files_alone(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stage(tmp_path / "one", list(FILES), time=1_000_000_000)
    monkeypatch.chdir(tmp_path)
    mask = os.umask(0o077)
    try:
        second = stage(Path("elsewhere/two"), list(reversed(FILES)), time=1_700_000_000)
    finally:
        os.umask(mask)
    infos = []
    for folder in (first, second):
        (blob,) = plan_blobs(plan_of(folder), setting)
        infos.append(sent(blob)[1])
    assert infos[0] == infos[1]
    assert (infos[0].digest, infos[0].diff_id) == (GOLDEN[setting], DIFF_ID)


@pytest.mark.parametrize("compression", Compression)
def test_every_stream_is_the_same_and_its_info_is_correct(compression: Compression, tmp_path: Path) -> None:
    (blob,) = plan_blobs(plan_of(stage(tmp_path, list(FILES), time=0)), compression.value)
    assert blob.info is None
    data, info = sent(blob)
    assert sent(blob) == (data, info)
    tar = b"".join(tar_chunks(blob.entries, blob.timestamp))
    assert info.size == len(data)
    assert info.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert info.diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert blob.size == (len(data) if compression is Compression.NONE else None)
    if compression is Compression.GZIP:
        assert gzip.decompress(data) == tar


def test_threads_change_nothing(tmp_path: Path) -> None:
    (blob,) = plan_blobs(plan_of(stage(tmp_path, list(FILES), time=0)), "gzip")
    made = set()
    for blob.threads in (1, 4):
        made.add(sent(blob)[1].digest)
    assert len(made) == 1


def test_media_types(tmp_path: Path) -> None:
    plan = plan_of(stage(tmp_path, list(FILES), time=0))
    cases: list[tuple[MediaTypes, Setting]] = [
        ("oci", "none"),
        ("oci", "auto"),
        ("oci", "zstd"),
        ("docker", "none"),
        ("docker", "gzip"),
    ]
    types = [plan_blobs(plan, setting, media_types=media)[0].media_type for media, setting in cases]
    assert types == [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ]
    (blob,) = plan_blobs(plan, "zstd", media_types="docker")
    with pytest.raises(BuildError, match="doesn't support layers with zstd compression"):
        _ = blob.media_type


def test_a_stream_that_is_left_or_fails_leaves_no_thread_and_no_info(tmp_path: Path) -> None:
    before = threading.active_count()
    (blob,) = plan_blobs(plan_of(stage(tmp_path, list(FILES), time=0)), "gzip")
    stream = blob.stream()
    next(stream)
    del stream
    (tmp_path / "a.py").write_bytes(b"changed")
    with pytest.raises(BuildError, match=r"a\.py changed while it was read"):
        list(blob.stream())
    assert blob.info is None
    assert threading.active_count() == before
