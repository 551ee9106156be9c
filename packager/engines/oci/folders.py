"""Adding to a base's folders without seeing them, as a Dockerfile's COPY does: they stay as they are. Pure.

Buildah keeps mode and owner of a folder that is there, and follows a symbolic link in its place.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packager.image.layers.entries import LayerEntry
from packager.image.plan import Layer
from packager.sources.file_list import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from packager.image.plan import BaseFolder, ImagePlan

_MOST_LINKS = 40  # as the kernel's own limit (path_resolution(7))


def folder_entries(folders: Iterable[BaseFolder]) -> list[LayerEntry]:
    """Return the base's folders as layers have them."""
    return [
        LayerEntry(path=folder.path, kind=Kind.FOLDER, mode=folder.mode, uid=folder.uid, gid=folder.gid)
        for folder in folders
        if not folder.target
    ]


def follow_links(plan: ImagePlan) -> ImagePlan:
    """Return the plan with each file where the base's symbolic links lead."""
    links = {folder.path: folder.target for folder in plan.base.folders if folder.target}
    if not links:
        return plan
    steps = tuple(_moved(step, links) if isinstance(step, Layer) else step for step in plan.steps)
    return replace(plan, steps=steps)


def _moved(layer: Layer, links: Mapping[str, str]) -> Layer:
    contents = tuple(
        replace(content, destination=_followed(content.destination.parent, links) / content.destination.name)
        if content.is_file or not isinstance(content.source, Path)
        else replace(content, destination=_followed(content.destination, links))
        for content in layer.contents
    )
    return layer if contents == layer.contents else replace(layer, contents=contents)


def _followed(path: PurePosixPath, links: Mapping[str, str]) -> PurePosixPath:
    """Follow the links that are known; a circle of them is left to whoever unpacks it."""
    done: list[str] = []
    waiting = list(reversed(path.parts[1:]))
    followed = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            del done[-1:]
            continue
        target = links.get("/".join([*done, part]))
        if target is None or followed == _MOST_LINKS:
            done.append(part)
            continue
        followed += 1
        if target.startswith("/"):
            done = []
        waiting += [word for word in reversed(target.split("/")) if word not in {"", "."}]
    return PurePosixPath("/", *done)
