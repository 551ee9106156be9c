"""What an environment is made of -> its key; what lies under the key -> used, or not and why."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from packager.environment.cache import registry as cache_registry
from packager.environment.cache.registry import KIND, EnvironmentStore, Inputs
from packager.image.plan import StoredLayer
from packager.image.planner import Dependencies
from packager.models.image import Descriptor
from packager.models.reference import Reference
from packager.settings import Settings
from tests.unit.memory_registry import HOST, MemoryRegistry, anonymous_access, digest_of, serve

PREFIX = PurePosixPath("/opt/conda/envs")
CONDA = "name: wine\nchannels: [conda-forge]\ndependencies:\n- python=3.11\n- pip:\n  - six==1.16\n"
LAYER = b"the environment's layer"
TAR = "application/vnd.oci.image.layer.v1.tar+gzip"
KEY = "ab" * 32
CACHE = Reference.parse(f"{HOST}/models/wine/cache", default_tag=None)
IMAGE = Reference.parse(f"{HOST}/models/wine:1")
DEPENDENCIES = Dependencies(
    python="/opt/conda/envs/wine/bin/python",
    python_version="3.11",
    root=Path("staging"),
    prefix=PREFIX / "wine",
    variables=(("A", "b"),),
    lock="lock\n",
    lock_digest="sha256:1",
)


def inputs(folder: Path, text: str = CONDA, **changes: Any) -> Inputs:
    file = folder / "model/conda.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    values = {
        "kind": "conda",
        "file": file,
        "artifact_root": folder / "model",
        "prefix": PREFIX,
        "target": ("linux-64", "2.36", ""),
    }
    return Inputs(**{**values, **changes})


def settings(**changes: Any) -> Settings:
    return Settings(cache_dir=Path("cache"), platform="linux-64", **changes)


def test_equal_inputs_have_one_key(tmp_path: Path) -> None:
    key = inputs(tmp_path).key(settings())
    assert len(key) == 64
    (tmp_path / "model/weights.bin").write_bytes(b"another model")
    assert inputs(tmp_path).key(settings(work_dir=tmp_path, stop_grace=3)) == key


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pip"},
        {"prefix": PurePosixPath("/envs")},
        {"target": ("linux-aarch64", "2.36", "")},
        {"target": ("linux-64", "2.31", "")},
        {"target": ("linux-64", "2.36", "3.11")},
        {"text": CONDA.replace("3.11", "3.12")},
        {"text": CONDA + "# a comment\n"},
    ],
    ids=str,
)
def test_another_input_is_another_key(tmp_path: Path, change: dict[str, Any]) -> None:
    assert inputs(tmp_path, **change).key(settings()) != inputs(tmp_path).key(settings())


@pytest.mark.parametrize(
    "change",
    [
        {"conda_channel_alias": "https://mirror.io/"},
        {"conda_default_channels": ("https://mirror.io/main",)},
        {"default_python": "3.12"},
        {"pip_index_url": "https://ann:s3cret@index.io/simple"},
        {"pip_extra_index_urls": ("https://index.io/simple",)},
        {"pip_find_links": ("/wheels",)},
        {"source_date_epoch": 1},
        {"layer_compression": "zstd"},
        {"image_format": "docker"},
    ],
    ids=str,
)
def test_another_setting_is_another_key(tmp_path: Path, change: dict[str, Any]) -> None:
    assert inputs(tmp_path).key(settings(**change)) != inputs(tmp_path).key(settings())


def test_another_version_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs(tmp_path).key(settings())
    monkeypatch.setattr(cache_registry, "__version__", "99")
    assert inputs(tmp_path).key(settings()) != before


NAMING = [
    "-r other.txt",
    "--requirement=other.txt",
    "-rother.txt",
    "dependencies: [python, {pip: ['-r other.txt']}]",
    'dependencies: [python, {"pip": ["-c","other.txt"]}]',
    "- -e .",
    "  - ./pkg",
    "  - '.'",
    "  - six @ file:pkg/six",
    "  - pkg/six-1.16.whl",
    "six.whl",
    "six.ZIP",
    "  - 'six @ file:///model/six'",
    "channels: [./channel, 'https://conda.io/x']",
    "-f wheels",
    "--find-links https://x.io/ pkg/wheels",
]
NOT_NAMING = [
    "channels: ['https://conda.io/x/y', \"https://a:b@c.io/d\"]",
    "- https://conda.io/some/channel",
    "--extra-index-url https://index.io/simple",
    "# see docs/readme, or -r other.txt",
    "prefix: /home/ann/envs/wine",
    "- scikit-learn==1.0",
    "- conda-forge::numpy",
    "- r-base",
    "name: my-run-e",
]


@pytest.mark.parametrize(
    ("line", "named"), [*((line, True) for line in NAMING), *((line, False) for line in NOT_NAMING)]
)
def test_files_that_the_file_may_name_count(tmp_path: Path, line: str, named: bool) -> None:
    key = inputs(tmp_path, f"{CONDA}{line}\n").key(settings())
    (tmp_path / "model/other.txt").write_text("six==1.16\n")
    assert (inputs(tmp_path, f"{CONDA}{line}\n").key(settings()) != key) is named


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_named_in_another_encoding_count(tmp_path: Path, encoding: str) -> None:
    asked = inputs(tmp_path)
    asked.file.write_bytes("-r other.txt\r\n".encode(encoding))
    key = asked.key(settings())
    (tmp_path / "model/other.txt").write_text("six==1.16\n")
    assert asked.key(settings()) != key


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    made = MemoryRegistry()
    serve(monkeypatch, made)
    made.put(IMAGE.path, LAYER)
    return made


@pytest.fixture
def store() -> EnvironmentStore:
    return EnvironmentStore(repository=CACHE, access=anonymous_access(), longest_age=timedelta(days=7))


def layer() -> StoredLayer:
    descriptor = Descriptor(media_type=TAR, digest=digest_of(LAYER), size=len(LAYER))
    return StoredLayer(name="environment", descriptor=descriptor, diff_id=digest_of(b"tar"), repository=IMAGE)


def kept(store: EnvironmentStore) -> Dependencies | None:
    store.keep(KEY, DEPENDENCIES, layer())
    return store.find(KEY)


@pytest.mark.parametrize("mounts", [True, False])
def test_what_was_kept_is_found(registry: MemoryRegistry, store: EnvironmentStore, mounts: bool) -> None:
    registry.mounts = mounts
    found = kept(store)
    assert found == replace(DEPENDENCIES, root=None, stored=replace(layer(), repository=CACHE))
    assert registry.blobs[CACHE.path, digest_of(LAYER)] == LAYER
    assert not registry.uploads


def test_nothing_kept(registry: MemoryRegistry, store: EnvironmentStore) -> None:
    assert store.find(KEY) is None
    assert registry.asked == [("GET", f"/v2/{CACHE.path}/manifests/environment-{KEY}")]


def test_age(registry: MemoryRegistry, store: EnvironmentStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert registry
    assert kept(store)
    now = datetime.now(timezone.utc)
    assert store.find(KEY, now=now + timedelta(days=6, hours=23))
    assert "solved 6 days ago" in caplog.text
    assert store.find(KEY, now=now + timedelta(days=7, minutes=1)) is None
    assert "the lock of the last solve is 7 days old: solving anew" in caplog.text
    assert replace(store, longest_age=timedelta(0)).find(KEY) is None
    assert store.find(KEY, now=now - timedelta(hours=2))  # another machine's clock
    assert store.find(KEY, now=now - timedelta(days=2)) is None
    assert "solved in the future" in caplog.text


def rewrite(registry: MemoryRegistry, store: EnvironmentStore, **changes: Any) -> None:
    """Replace the note by one whose document or manifest is another."""
    assert kept(store)
    tag = f"environment-{KEY}"
    manifest = json.loads(registry.manifests[CACHE.path, tag][1])
    document = json.loads(registry.blobs[CACHE.path, manifest["config"]["digest"]])
    for name, value in changes.items():
        if name in {"layers", "config"}:
            manifest[name] = value
        else:
            document[name] = value
    if "config" not in changes:
        data = json.dumps(document).encode()
        manifest["config"].update(digest=registry.put(CACHE.path, data), size=len(data))
    registry.put_manifest(CACHE.path, tag, manifest)


ENTRY = {"mediaType": TAR, "digest": digest_of(LAYER), "size": len(LAYER)}
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "another key": ({"key": "cd" * 32}, "kept for something else"),
    "another form": ({"form": 2}, "kept for something else"),
    "no key": ({"key": None}, "kept for something else"),
    "diffId of another shape": ({"diffId": "sha256:12"}, "is not a digest"),
    "diffId missing": ({"diffId": None}, "is not a digest"),
    "variables no pairs": ({"variables": ["A"]}, "not what it should be"),
    "time no time": ({"solvedAt": "yesterday"}, "not what it should be"),
    "time without a zone": ({"solvedAt": "2026-01-01T00:00:00"}, "not what it should be"),
    "prefix no path": ({"prefix": 3}, "not what it should be"),
    "a Python that is none": ({"pythonVersion": "banana"}, "its Python is none"),
    "a Python somewhere": ({"python": "bin/python"}, "its Python is none"),
    "a variable that is none": ({"variables": [["A=B\n", "x"]]}, "one of its variables is none"),
    "a layer packed otherwise": ({"layers": [{**ENTRY, "mediaType": f"{TAR}+foo"}]}, "its layer is none"),
    "no layer": ({"layers": []}, "not what it should be"),
    "two layers": ({"layers": [ENTRY, ENTRY]}, "not what it should be"),
    "a layer of another kind": ({"layers": [{**ENTRY, "mediaType": "text/html"}]}, "its layer is none"),
    "a layer outside": ({"layers": [{**ENTRY, "digest": "sha256:../../x"}]}, "can't be read, and are not used"),
    "layers no list": ({"layers": 3}, "can't be read, and are not used"),
    "another kind of note": (
        {"config": {"mediaType": "text/html", "digest": digest_of(LAYER)}},
        "is not an artifact of type",
    ),
    "no note": ({"config": {"mediaType": KIND, "digest": digest_of(LAYER)}}, "can't be read, and are not used"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_note_that_lies_is_not_used_and_that_is_said(
    registry: MemoryRegistry, store: EnvironmentStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    changes, words = LIES[name]
    registry.put(CACHE.path, LAYER)
    rewrite(registry, store, **changes)
    assert store.find(KEY) is None
    assert words in caplog.text
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["WARNING"]


@pytest.mark.parametrize("data", [None, b"short"])
def test_a_blob_that_is_gone_or_of_another_size(
    registry: MemoryRegistry, store: EnvironmentStore, caplog: pytest.LogCaptureFixture, data: bytes | None
) -> None:
    caplog.set_level(logging.INFO)
    assert kept(store)
    del registry.blobs[CACHE.path, digest_of(LAYER)]
    if data is not None:
        registry.blobs[CACHE.path, digest_of(LAYER)] = data
    assert store.find(KEY) is None
    assert "names a blob that no longer exists" in caplog.text
    if data is None:
        assert kept(store)  # the next run makes it anew


def test_a_note_under_a_tag_that_is_replaced_meanwhile(registry: MemoryRegistry, store: EnvironmentStore) -> None:
    """Two Jobs race: the later note counts, and each is whole."""
    store.keep(KEY, DEPENDENCIES, layer())
    store.keep(KEY, replace(DEPENDENCIES, lock="another\n"), layer())
    found = store.find(KEY)
    assert found is not None
    assert found.lock == "another\n"
    assert registry.blobs


def test_a_registry_that_keeps_nothing_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, store: EnvironmentStore, caplog: pytest.LogCaptureFixture
) -> None:
    serve(monkeypatch, MemoryRegistry())  # has no such layer anywhere
    store.keep(KEY, DEPENDENCIES, layer())
    assert "the environment can't be kept for the next run" in caplog.text
