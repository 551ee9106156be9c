"""Looking into root filesystems, hostile ones too."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from packager.engines.rootfs import find_glibc, find_python, resolve

if TYPE_CHECKING:
    from pathlib import Path

GLIBC = b"\x7fELF\0...GNU C Library (Debian GLIBC 2.36-9+deb12u1) stable release version 2.36.\nCopyright\0"


def write(path: Path, content: bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize(
    "place",
    ["lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib64", "usr/lib64", "usr/lib"],
)
def test_glibc_is_found_where_distributions_put_it(tmp_path: Path, place: str) -> None:
    write(tmp_path / place / "libc.so.6", GLIBC)
    assert find_glibc(tmp_path) == "2.36"


def test_glibc_behind_links_as_of_a_merged_usr(tmp_path: Path) -> None:
    write(tmp_path / "usr/lib/x86_64-linux-gnu/libc-2.31.so", GLIBC.replace(b"2.36", b"2.31"))
    link(tmp_path / "usr/lib/x86_64-linux-gnu/libc.so.6", "libc-2.31.so")
    link(tmp_path / "lib", "/usr/lib")
    assert find_glibc(tmp_path) == "2.31"


def test_no_glibc(tmp_path: Path) -> None:
    assert find_glibc(tmp_path) is None
    write(tmp_path / "lib/libc.musl-x86_64.so.1", b"musl")
    write(tmp_path / "lib/libc.so.6", b"something else")
    assert find_glibc(tmp_path) is None


@pytest.mark.parametrize(
    ("links", "files", "expected"),
    [
        ({"usr/bin/python3": "python3.11"}, ["usr/bin/python3.11"], "3.11"),
        ({"bin/python3": "python3.1", "usr/local/bin/python3": "/python3.12"}, ["bin/python3.1", "python3.12"], "3.12"),
        ({"bin/python3": "/etc/alternatives/py", "etc/alternatives/py": "/opt/python3.9"}, ["opt/python3.9"], "3.9"),
        ({"bin": "usr/bin", "usr/bin/python3": "../../opt/python3.10"}, ["opt/python3.10"], "3.10"),
        ({}, ["usr/bin/python3", "usr/lib/python3.8/os.py"], "3.8"),
        ({}, ["usr/bin/python3", "usr/lib/python3.8/os.py", "usr/lib/python3.9/os.py"], None),
        ({"usr/bin/python3": "nowhere"}, [], None),
        ({}, ["usr/bin/python"], None),
        ({}, [], None),
    ],
)  # fmt: skip
def test_python(tmp_path: Path, links: dict[str, str], files: list[str], expected: str | None) -> None:
    for name in files:
        write(tmp_path / name)
    for name, target in links.items():
        link(tmp_path / name, target)
    assert find_python(tmp_path) == expected


def test_the_images_own_path_counts(tmp_path: Path) -> None:
    for name in ("opt/conda/bin/python3.10", "usr/bin/python3.11"):
        write(tmp_path / name)
    link(tmp_path / "opt/conda/bin/python3", "python3.10")
    link(tmp_path / "usr/bin/python3", "python3.11")
    assert find_python(tmp_path, "/opt/conda/bin:/usr/bin") == "3.10"
    assert find_python(tmp_path, "relative:/usr/bin") == "3.11"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/etc/passwd", "/etc/passwd"),
        ("../../../../../etc/passwd", "/etc/passwd"),
        ("./a/../b", "/b"),
        ("loop", None),
        ("/etc/passwd/x", None),
    ],
)
def test_links_never_leave_the_root(tmp_path: Path, target: str, expected: str | None) -> None:
    root = tmp_path / "root"
    write(root / "etc/passwd", b"inside")
    write(root / "b")
    (root / "a").mkdir()
    link(root / "loop", target)
    found = resolve(root, "/loop")
    assert (str(found) if found else None) == expected


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "lib64").mkdir()
    os.mkfifo(tmp_path / "lib64/libc.so.6")
    (tmp_path / "usr/lib/libc.so.6").mkdir(parents=True)
    assert stat.S_ISFIFO((tmp_path / "lib64/libc.so.6").stat().st_mode)
    assert find_glibc(tmp_path) is None
