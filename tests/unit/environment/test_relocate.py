"""Moving hand-made trees: nothing of the staging folder stays, and the records stay right."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import stat
from pathlib import Path, PurePosixPath

import pytest

from packager.environment.bytecode import Compilation
from packager.environment.lock import lock_digest, lock_text, pip_packages
from packager.environment.relocate import Relocation, clean_conda_meta, files_with, shebang
from packager.errors import InstallError

PREFIX = PurePosixPath("/opt/conda/envs/wine")


def staged(tmp_path: Path, files: dict[str, str]) -> Relocation:
    staging = tmp_path / "environment"
    site = staging / "lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (staging / "bin").mkdir()
    for name, text in files.items():
        path = staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("STAGING", str(staging)), encoding="utf-8")
    return Relocation(staging=staging, prefix=PREFIX, site_packages=site)


def record_line(path: Path, name: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{path.stat().st_size}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("#!STAGING/bin/python\nimport x\n", "#!/opt/conda/envs/wine/bin/python\nimport x\n"),
        ("#!STAGING/bin/python -u\nx\n", "#!/opt/conda/envs/wine/bin/python -u\nx\n"),
        (
            "#!/bin/sh\n'''exec' \"STAGING/bin/python\" \"$0\" \"$@\"\n' '''\nx\n",
            "#!/opt/conda/envs/wine/bin/python\nx\n",
        ),
        ("#!/bin/sh\n'''exec' STAGING/bin/python \"$0\" \"$@\"\n' '''\nx\n", "#!/opt/conda/envs/wine/bin/python\nx\n"),
        (
            "#!/bin/sh\n'''exec' 'STAGING/bin/python' \"$0\" \"$@\"\n' '''\nx\n",
            "#!/opt/conda/envs/wine/bin/python\nx\n",
        ),
        ("#!/bin/sh\necho hello\n", "#!/bin/sh\necho hello\n"),
        ("#!/bin/sh\nexec STAGING/bin/python\n", "#!/bin/sh\nexec /opt/conda/envs/wine/bin/python\n"),
        ("no script\n", "no script\n"),
    ],
)
def test_scripts(tmp_path: Path, before: str, after: str) -> None:
    relocation = staged(tmp_path, {"bin/tool": before})
    tool = relocation.staging / "bin/tool"
    tool.chmod(0o755)
    relocation.move()
    assert tool.read_text(encoding="utf-8") == after
    assert stat.S_IMODE(tool.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"/x/bin/python", b"#!/x/bin/python\n"),
        (b"/" + b"x" * 124 + b"/p", b"#!/" + b"x" * 124 + b"/p\n"[:3]),
        (b"/usr/bin/env python3", b"#!/usr/bin/env python3\n"),
    ],
)
def test_short_shebangs(program: bytes, expected: bytes) -> None:
    line = shebang(program)
    assert line == expected if len(program) <= 125 else line.startswith(b"#!/bin/sh\n")


@pytest.mark.parametrize("program", [b"/" + b"x" * 130 + b"/python", b"/a b/python"])
def test_long_shebangs_go_through_a_shell(program: bytes) -> None:
    assert shebang(program) == b"#!/bin/sh\n'''exec' \"" + program + b'" "$0" "$@"\n\' \'\'\'\n'


def test_scripts_of_another_interpreter(tmp_path: Path) -> None:
    relocation = Relocation(
        staging=tmp_path / "packages",
        prefix=PurePosixPath("/opt/odahu/packages"),
        site_packages=tmp_path / "packages",
        interpreter="/usr/bin/env python3",
        foreign=("/venv/bin/python",),
    )
    assert relocation.script(b"#!/venv/bin/python\nx\n") == b"#!/usr/bin/env python3\nx\n"
    assert relocation.script(b"#!/bin/bash\nx\n") == b"#!/bin/bash\nx\n"


def test_records_and_metadata(tmp_path: Path) -> None:
    info = "lib/python3.11/site-packages/a-1.dist-info"
    relocation = staged(
        tmp_path,
        {
            "bin/a": "#!STAGING/bin/python\n",
            f"{info}/METADATA": "Name: a\nVersion: 1\n",
            f"{info}/INSTALLER": "uv",
            f"{info}/direct_url.json": '{"url": "file:///somewhere/a.whl"}',
            f"{info}/uv_cache.json": "{}",
            f"{info}/RECORD": "../../../bin/a,sha256=old,1\na-1.dist-info/direct_url.json,sha256=old,1\n"
            'a-1.dist-info/uv_cache.json,,\n"a-1.dist-info/with, comma",,\na-1.dist-info/RECORD,,\n',
        },
    )
    relocation.move()
    folder = relocation.staging / info
    assert sorted(path.name for path in folder.iterdir()) == ["INSTALLER", "METADATA", "RECORD"]
    text = (folder / "RECORD").read_text(encoding="utf-8")
    assert text == (
        record_line(relocation.staging / "bin/a", "../../../bin/a")
        + '"a-1.dist-info/with, comma",,\na-1.dist-info/RECORD,,\n'
    )
    assert [row[0] for row in csv.reader(text.splitlines())][1] == "a-1.dist-info/with, comma"


def test_a_url_loses_its_credentials(tmp_path: Path) -> None:
    info = "lib/python3.11/site-packages/a-1.dist-info"
    document = '{"url": "https://u:s3cret@host/a.whl", "archive_info": {}}'
    relocation = staged(tmp_path, {f"{info}/direct_url.json": document, f"{info}/RECORD": "a-1.dist-info/RECORD,,\n"})
    relocation.move()
    kept = json.loads((relocation.staging / info / "direct_url.json").read_bytes())
    assert kept == {"url": "https://host/a.whl", "archive_info": {}}


def test_text_is_moved_and_a_binary_is_refused(tmp_path: Path) -> None:
    relocation = staged(tmp_path, {"etc/settings.ini": "home = STAGING/share\n"})
    relocation.move()
    assert (relocation.staging / "etc/settings.ini").read_text(encoding="utf-8") == f"home = {PREFIX}/share\n"
    (relocation.staging / "lib/x.so").write_bytes(b"\x7fELF\0" + bytes(relocation.staging) + b"/lib\0")
    with pytest.raises(InstallError, match=r"lib/x\.so"):
        relocation.move()


def test_a_hard_link_elsewhere_keeps_its_content(tmp_path: Path) -> None:
    relocation = staged(tmp_path, {"bin/tool": "#!STAGING/bin/python\n"})
    cached = tmp_path / "cached"
    cached.hardlink_to(relocation.staging / "bin/tool")
    before = cached.read_bytes()
    relocation.move()
    assert cached.read_bytes() == before


def test_conda_meta(tmp_path: Path) -> None:
    meta = tmp_path / "conda-meta"
    meta.mkdir()
    record = {
        "name": "x",
        "url": "file:///srv/here/chan/noarch/x.conda",
        "channel": "file:///srv/here/chan",
        "extracted_package_dir": "/home/me/cache/x",
        "package_tarball_full_path": "/home/me/cache/x.conda",
        "link": {"source": "/home/me/cache/x", "type": 1},
        "indexed_timestamp": 5,
    }
    (meta / "x.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "CACHEDIR.TAG").touch()
    clean_conda_meta(tmp_path, lambda url: url.replace("/srv/here", ""))
    assert json.loads((meta / "x.json").read_bytes()) == {
        "name": "x",
        "url": "file:///chan/noarch/x.conda",
        "channel": "file:///chan",
    }
    assert not (tmp_path / "CACHEDIR.TAG").exists()


def test_a_link_into_the_staging_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(InstallError, match="link"):
        clean_conda_meta(tmp_path, str)


def test_files_with(tmp_path: Path) -> None:
    for name, data in {"a": b"", "b": b"x" * 100_000 + b"needle", "c": b"nothing"}.items():
        (tmp_path / name).write_bytes(data)
    assert list(files_with(sorted(tmp_path.iterdir()), b"needle")) == [tmp_path / "b"]


def test_bytecode_is_kept_by_content(tmp_path: Path) -> None:
    def digest(folder: str, files: dict[str, str], version: str = "3.11") -> str:
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Compilation(
            interpreter=None,
            version=version,
            folder=tmp_path / folder / "lib/python3.11",
            destination=PREFIX,
            workspace=tmp_path,
            cache=tmp_path,
            interpreter_folders=(tmp_path / folder / "bin",),
        ).digest()

    base = {"bin/python": "x", "lib/python3.11/os.py": "", "lib/python3.11/site-packages/a.py": "1"}
    same = [digest("a", base), digest("b", base), digest("c", base | {"lib/python3.11/site-packages/data.csv": ""})]
    assert len(set(same)) == 1
    others = [
        digest("d", base | {"bin/python": "y"}),
        digest("e", base | {"lib/python3.11/os.py": "2"}),
        digest("f", base | {"lib/python3.11/site-packages/a.py": "2"}),
        digest("g", base | {"lib/python3.11/lib-dynload/_struct.so": ""}),
        digest("h", base, version="3.12"),
    ]
    assert len({*same, *others}) == 6


def test_the_lock_lists_what_uv_installed(tmp_path: Path) -> None:
    for name, installer in (("b", "uv"), ("A", "uv"), ("c", "conda")):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: 1\n\nName: nonsense\n", encoding="utf-8")
        (folder / "INSTALLER").write_text(installer, encoding="utf-8")
        (folder / "RECORD").write_text("x,,\n", encoding="utf-8")
    lock = lock_text("linux-64", None, pip_packages(tmp_path))
    assert [line.partition(" record-")[0] for line in lock.splitlines()[3:]] == ["# pip: A==1", "# pip: b==1"]
    digests = {lock_digest(lock, platform, PREFIX / name) for platform in ("linux-64", "x") for name in ("a", "b")}
    assert len(digests) == 4
