from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from packager.errors import BuildError
from packager.image.layers.entries import LayerEntry, layer_entries, plan_entries
from packager.image.plan import Content, ImageConfig, ImagePlan, Layer
from packager.sources.file_list import Kind
from tests.unit.builders import base

ROOT = PurePosixPath("/opt/app")


def at(path: str) -> PurePosixPath:
    return PurePosixPath(path)


def rows(entries: list[LayerEntry]) -> list[tuple[str, str, int, int]]:
    return [(entry.path, entry.kind.value, entry.mode, entry.uid) for entry in entries]


def test_every_kind_of_content_and_the_folders_above(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "b").mkdir(parents=True)
    (source / "b/run").write_text("#!")
    (source / "b/run").chmod(0o4710)
    (source / "a").write_text("a")
    (source / "a").chmod(0o600)
    (source / "a-").write_text("")
    (source / "out").write_text("left out")
    (source / "link").symlink_to("./b//run")
    (source / "folder").symlink_to("b")
    os.link(source / "a", source / "hard")
    contents = (
        Content(source=source, destination=ROOT, exclude=frozenset({"out"})),
        Content(source=b"lock", destination=ROOT / "x/lock"),
        Content(source=source / "b/run", destination=ROOT / "again", is_file=True),
    )
    entries = layer_entries(Layer(name="x", contents=contents, uid=7, gid=8))
    assert rows(entries) == [
        ("opt", "folder", 0o755, 7),
        ("opt/app", "folder", 0o755, 7),
        ("opt/app/a", "file", 0o644, 7),
        ("opt/app/a-", "file", 0o644, 7),
        ("opt/app/again", "file", 0o755, 7),
        ("opt/app/b", "folder", 0o755, 7),
        ("opt/app/b/run", "file", 0o755, 7),
        ("opt/app/folder", "link", 0o777, 7),
        ("opt/app/hard", "file", 0o644, 7),
        ("opt/app/link", "link", 0o777, 7),
        ("opt/app/x", "folder", 0o755, 7),
        ("opt/app/x/lock", "file", 0o644, 7),
    ]
    by_path = {entry.path: entry for entry in entries}
    assert by_path["opt/app/link"].target == "./b//run"
    assert b"".join(by_path["opt/app/x/lock"].read()) == b"lock"
    assert b"".join(by_path["opt/app/hard"].read()) == b"a"
    assert {entry.gid for entry in entries} == {8}


def test_what_lies_in_a_folder_follows_it_directly() -> None:
    names = ["a/z", "a-b", "a.c", "ä", "a/b/c", "Z"]
    layer = Layer(name="x", contents=tuple(Content(source=b"", destination=at(f"/{name}")) for name in names))
    assert [entry.path for entry in layer_entries(layer)] == ["Z", "a", "a/b", "a/b/c", "a/z", "a-b", "a.c", "ä"]


def test_of_two_contents_the_later_counts() -> None:
    contents = tuple(Content(source=data, destination=at("/a/b")) for data in (b"one", b"second"))
    *_, entry = layer_entries(Layer(name="x", contents=contents))
    assert (entry.size, entry.source) == (6, b"second")


def test_folders_that_are_there_already_keep_mode_and_owner() -> None:
    def layer(uid: int, path: str) -> Layer:
        return Layer(name="x", contents=(Content(source=b"", destination=at(path)),), uid=uid)

    plan = ImagePlan(base=base(), steps=(layer(7, "/opt/a/b/f"), layer(0, "/opt/a/b/c/g")), config=ImageConfig())
    known = LayerEntry(path="opt", kind=Kind.FOLDER, mode=0o2775, uid=5)
    first, second = plan_entries(plan, [known])
    assert rows(first)[:3] == [
        ("opt", "folder", 0o2775, 5),
        ("opt/a", "folder", 0o755, 7),
        ("opt/a/b", "folder", 0o755, 7),
    ]
    assert rows(second)[:3] == rows(first)[:3]
    assert rows(second)[3] == ("opt/a/b/c", "folder", 0o755, 0)


@pytest.mark.parametrize(
    ("destinations", "says"),
    [
        (["/a/.wh.b"], "removes another file"),
        (["/.wh.a/b"], "removes another file"),
        (["/a", "/a/b"], "folder and something else"),
        (["/a/b", "/a"], "folder and something else"),
    ],
)
def test_what_can_not_be_in_a_layer_is_refused(destinations: list[str], says: str) -> None:
    contents = tuple(Content(source=b"", destination=at(path)) for path in destinations)
    with pytest.raises(BuildError, match=says):
        layer_entries(Layer(name="x", contents=contents))


def test_a_pipe_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildError, match="pipe is neither a file"):
        layer_entries(Layer(name="x", contents=(Content(source=tmp_path, destination=ROOT),)))
    with pytest.raises(BuildError, match="none"):
        layer_entries(Layer(name="x", contents=(Content(source=tmp_path / "none", destination=ROOT, is_file=True),)))


@pytest.mark.parametrize("data", [b"", b"shorter", b"longer than before"])
def test_a_file_that_changes_is_noticed(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"ten bytes.")
    *_, entry = layer_entries(Layer(name="x", contents=(Content(source=path, destination=ROOT, is_file=True),)))
    path.write_bytes(data)
    with pytest.raises(BuildError, match="file changed while it was read"):
        list(entry.read())
    path.unlink()
    with pytest.raises(BuildError, match="file can't be read: No such file"):
        list(entry.read())
