"""Which files of a model get a layer of their own, so that an unchanged one is never sent again. Pure.

An image may have 127 layers (docker's limit; overlay file systems allow few more). The base image brings some and we
add the environment, the runtime and the small files of the model, so large files get `MOST_LAYERS`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGE = 32 << 20  # bytes; the requests for a further layer take less time than sending these
MOST_LAYERS = 48


def group_large_files(sizes: Mapping[str, int]) -> list[list[str]]:
    """Give the paths of the large files in groups, a group a layer.

    Up to `MOST_LAYERS` files are alone in theirs, in the order of their paths. More are spread over that many groups by
    a hash of the path: where one file goes doesn't depend on the others, so one that is changed, added or removed
    changes one layer. (Cut into runs by name, a further file would shift all that follow.)
    """
    large = sorted(path for path, size in sizes.items() if size >= LARGE)
    if len(large) <= MOST_LAYERS:
        return [[path] for path in large]
    groups: dict[int, list[str]] = {}
    for path in large:
        number = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % MOST_LAYERS
        groups.setdefault(number, []).append(path)
    return [groups[number] for number in sorted(groups)]
