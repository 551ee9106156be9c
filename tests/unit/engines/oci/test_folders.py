"""A base's folders and links -> where our files go, and which modes the folders above them keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from packager.engines.oci.base_image import folder_entries, follow_links
from packager.image.layers.entries import plan_entries
from packager.image.plan import BaseFolder, Content, ImagePlan, Layer
from packager.image.planner import make_plan
from tests.unit.builders import base, prepared, request


def plan(destination: str, *folders: BaseFolder) -> ImagePlan:
    made = make_plan(request(), prepared(base=base(folders=folders)))
    return replace(
        made, steps=(Layer(name="x", contents=(Content(source=b"x", destination=PurePosixPath(destination)),)),)
    )


def link(path: str, target: str) -> BaseFolder:
    return BaseFolder(path=path, target=target)


@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ((), "/opt/odahu/model/x"),
        ((link("srv", "/elsewhere"),), "/opt/odahu/model/x"),
        ((link("opt", "/data"),), "/data/odahu/model/x"),
        ((link("opt", "usr/local"),), "/usr/local/odahu/model/x"),
        ((link("opt/odahu", "../srv/o"),), "/srv/o/model/x"),
        ((link("opt", "/a"), link("a", "b/./c")), "/b/c/odahu/model/x"),
        ((link("opt", "/a"), link("a/odahu", "/z")), "/z/model/x"),
        ((link("opt/odahu/model/x", "/file"),), "/opt/odahu/model/x"),  # a file takes the link's place
        ((link("opt", "/../../up"),), "/up/odahu/model/x"),
    ],
)
def test_links_are_followed(links: tuple[BaseFolder, ...], expected: str) -> None:
    (layer,) = follow_links(plan("/opt/odahu/model/x", *links)).layers
    assert [str(content.destination) for content in layer.contents] == [expected]


def test_a_circle_ends() -> None:
    (layer,) = follow_links(plan("/opt/x", link("opt", "/opt"))).layers
    assert layer.contents[0].destination.name == "x"


def test_a_folder_goes_where_its_own_link_leads(tmp_path: Path) -> None:
    made = plan("/x", link("opt/odahu", "/data"))
    contents = (Content(source=tmp_path, destination=PurePosixPath("/opt/odahu")),)
    (layer,) = follow_links(replace(made, steps=(Layer(name="x", contents=contents),))).layers
    assert str(layer.contents[0].destination) == "/data"


def test_folders_keep_their_mode_and_owner() -> None:
    made = plan("/opt/odahu/x", BaseFolder(path="opt", mode=0o711, uid=5, gid=7), link("srv", "/x"))
    entries = folder_entries(made.base.folders)
    assert [entry.path for entry in entries] == ["opt"]
    (listed,) = plan_entries(made, entries)
    assert [(entry.path, entry.mode, entry.uid, entry.gid) for entry in listed] == [
        ("opt", 0o711, 5, 7),
        ("opt/odahu", 0o755, 0, 0),
        ("opt/odahu/x", 0o644, 0, 0),
    ]
