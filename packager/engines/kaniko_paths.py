"""The paths that Kaniko leaves alone in its root: nothing of an image can lie there, and it would say nothing. Pure.

It skips them when it unpacks, copies, takes a snapshot and cleans up (its pkg/util/fs_util.go).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from packager.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packager.image.plan import ImagePlan
    from packager.settings import Settings

JOB_IMAGE_MARK = Path("/kaniko/.packager-job-image")  # the Job image has it, and nothing else
_ALWAYS = ("/kaniko", "/var/run", "/etc/mtab")
_OCTAL = re.compile(r"\\([0-7]{3})")
_MOUNT_POINT = 4  # the field of a line of /proc/PID/mountinfo (proc(5))


def own_paths(context: Path, settings: Settings) -> list[PurePosixPath]:
    """Return Kaniko's own paths, and ours that it is told to leave alone."""
    return [PurePosixPath(path) for path in (*_ALWAYS, context.parent, settings.cache_dir)]


def read_mounts(mountinfo: str) -> list[PurePosixPath]:
    """Return the mount points of a `/proc/PID/mountinfo`, the root left out."""
    fields = (line.split(" ") for line in mountinfo.splitlines())
    points = [row[_MOUNT_POINT] for row in fields if len(row) > _MOUNT_POINT]
    return [PurePosixPath(_OCTAL.sub(lambda found: chr(int(found[1], 8)), point)) for point in points if point != "/"]


def check_destinations(plan: ImagePlan, left_alone: Iterable[PurePosixPath]) -> None:
    """Refuse a plan that puts files where Kaniko leaves everything as it is.

    Raises:
        BuildError: It does; names the layer and the path.
    """
    paths = list(left_alone)
    for layer in plan.layers:
        for content in layer.contents:
            hidden = next((path for path in paths if content.destination.is_relative_to(path)), None)
            if hidden is not None:
                raise BuildError(
                    f"the layer {layer.name!r} goes to {content.destination}, and Kaniko leaves {hidden} as it is: "
                    "the image would not have it",
                    hint="choose another dockerfileCondaEnvsLocation, mount nothing there in the Job, or use another "
                    "engine",
                )
