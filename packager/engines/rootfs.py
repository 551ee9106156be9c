"""Detection of glibc and Python in an unpacked root file system, without running anything from it.

The root is not trusted: links are followed inside it only, and only regular files of limited size are read. It also
runs as a program (`python rootfs.py PATH` with ROOT set) in another mount namespace, so it imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path, PurePosixPath

_MAX_LINKS = 40  # as the kernel's own limit (path_resolution(7))
_MAX_BYTES = 64 << 20
_LIBRARY_FOLDERS = (
    "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu",
    "lib64", "usr/lib64", "lib", "usr/lib",
)  # fmt: skip
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GLIBC = re.compile(rb"GNU C Library [^\n\0]{0,200}? version (\d+\.\d+)")
_PYTHON = re.compile(r"python(\d+\.\d+)")


def resolve(root: Path, path: str) -> PurePosixPath | None:
    """Follow links as if `root` were `/`; return the real path below it, or None if it doesn't exist."""
    done: list[str] = []
    waiting = [part for part in reversed(path.split("/")) if part]
    links = 0
    while waiting:
        part = waiting.pop()
        if part == ".":
            continue
        if part == "..":
            del done[-1:]
            continue
        here = root.joinpath(*done, part)
        try:
            mode = here.lstat().st_mode
        except (OSError, ValueError):
            return None
        if not stat.S_ISLNK(mode):
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            return None
        target = os.readlink(here)  # noqa: PTH115  (Path would drop empty parts)
        if target.startswith("/"):
            done = []
        waiting += [word for word in reversed(target.split("/")) if word]
    return PurePosixPath("/", *done)


def find_glibc(root: Path) -> str | None:
    """Return the version of glibc, as `2.36`; None without glibc."""
    for folder in _LIBRARY_FOLDERS:
        content = _read(root, f"{folder}/libc.so.6")
        if content and (found := _GLIBC.search(content)):
            return found[1].decode("ascii")
    return None


def find_python(root: Path, path: str = DEFAULT_PATH) -> str | None:
    """Return the version of the first `python3` on the image's PATH, as `3.11`; None if unknown."""
    for folder in path.split(":"):
        program = resolve(root, f"{folder}/python3") if folder.startswith("/") else None
        if program is None:
            continue
        if named := _PYTHON.match(program.name):
            return named[1]
        libraries = resolve(root, str(program.parent.parent / "lib"))
        names = os.listdir(root.joinpath(*libraries.parts[1:])) if libraries else []  # noqa: PTH208  (names only)
        versions = {found[1] for name in names if (found := _PYTHON.fullmatch(name))}
        return versions.pop() if len(versions) == 1 else None
    return None


def _read(root: Path, path: str) -> bytes | None:
    real = resolve(root, path)
    if real is None:
        return None
    try:
        handle = os.open(root.joinpath(*real.parts[1:]), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    with os.fdopen(handle, "rb") as file:
        return file.read(_MAX_BYTES)


def main() -> None:
    """Print the results for the folder in the variable ROOT as JSON; argument 1 is the image's PATH."""
    root, path = Path(os.environ["ROOT"]), sys.argv[1]
    json.dump({"glibc": find_glibc(root), "python": find_python(root, path)}, sys.stdout)


if __name__ == "__main__":
    main()
