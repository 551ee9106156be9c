"""Measure our layers beside tar, sha256sum, gzip and pigz on the same bytes.

Usage: python bench/layers.py [MEGABYTES of the incompressible file, 500 unless told] [FOLDER, else this Python's]

Every measurement is a process of its own that writes what it makes to a file; the best wall time of three counts.
Memory is the peak of the largest process, as Linux counts it; ours has the interpreter and imports in it. Files lie in
TMPDIR and are removed.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20
TIMES = 3
OURS = """
import sys, zipfile
from pathlib import Path, PurePosixPath
from packager.image.layers.blob import plan_blobs
from packager.models.reference import Reference
from packager.image.plan import BaseImage, Content, ImageConfig, ImagePlan, Layer
from packager.sources.zip_member import ZipMember
source, setting, out, threads = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
if source.suffix == ".zip":
    with zipfile.ZipFile(source) as archive:
        (info,) = archive.infolist()
    source = ZipMember(
        archive=source, name=info.filename.encode(), offset=info.header_offset, method=info.compress_type,
        packed=info.compress_size, size=info.file_size, crc=info.CRC,
    )
is_file = not isinstance(source, Path) or source.is_file()
layer = Layer(name="x", contents=(Content(source=source, destination=PurePosixPath("/opt/x"), is_file=is_file),))
plan = ImagePlan(base=BaseImage(reference=Reference.parse("base")), steps=(layer,), config=ImageConfig())
(blob,) = plan_blobs(plan, setting)
blob.threads = threads or blob.threads
with open(out, "wb") as file:
    for chunk in blob.stream():
        file.write(chunk)
print(blob.compression.value)
"""
IMPORTS = "import packager.image.layers.blob"
HEADERS = """
import sys, tarfile, time
from packager.image.layers.entries import LayerEntry
from packager.image.layers.tar import header
from packager.sources.file_list import Kind
entries = [LayerEntry(path=f"opt/conda/lib/python3.11/site-packages/package/module_{number}.py", kind=Kind.FILE,
                      mode=0o644, size=10) for number in range(20_000)]
start = time.perf_counter()
for entry in entries:
    header(entry, 0)
middle = time.perf_counter()
for entry in entries:
    info = tarfile.TarInfo(entry.path)
    info.size, info.mode, info.mtime = entry.size, entry.mode, 0
    info.tobuf(tarfile.PAX_FORMAT)
print(f"{middle - start:.2f} {time.perf_counter() - middle:.2f}")
"""


@dataclass(frozen=True)
class Measured:
    """Wall and processor seconds, peak memory in MB, what was printed."""

    wall: float
    cpu: float
    peak: float
    said: str


def main() -> None:
    """Print the tables."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(sysconfig.get_path("purelib"))  # noqa: PLR2004
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        bare = measure([sys.executable, "-c", IMPORTS])
        print(f"the imports alone: {bare.wall:.2f} s, {bare.peak:.0f} MB")
        ours, theirs = measure([sys.executable, "-c", HEADERS]).said.split()
        print(f"20,000 tar headers: ours {ours} s, tarfile {theirs} s")
        large = work / "large.bin"
        with large.open("wb") as out:
            for _ in range(megabytes):
                out.write(os.urandom(CHUNK))
        zips = [pack(large, work / f"{word}.zip", method) for word, method in METHODS.items()]
        compare(f"{megabytes} MiB that don't compress, one file", large, work, ["auto", "none", "gzip", "zstd"], zips)
        for path in (large, *zips):
            path.unlink()
        files = sum(path.is_file() for path in folder.rglob("*"))
        compare(f"a folder of {files:,} files", folder, work, ["auto", "none", "gzip", "zstd"], [])


METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}


def pack(source: Path, path: Path, method: int) -> Path:
    """Put a file into a zip."""
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        archive.write(source, "large.bin")
    return path


def compare(title: str, source: Path, work: Path, settings: list[str], zips: list[Path]) -> None:
    """Print a table for one source."""
    out = work / "out"
    parent, name, quoted = shlex.quote(str(source.parent)), shlex.quote(source.name), shlex.quote(str(out))
    tar = f"tar -C {parent} -cf - {name}"
    both = f"tee >(sha256sum >&2) | {{}} | tee {quoted} | sha256sum"
    shells = {
        "cp": f"cp -r {parent}/{name} {quoted}",
        "tar | sha256sum": f"{tar} | tee {quoted} | sha256sum",
        **{f"tar, {word}, both digests": f"{tar} | {both.format(word)}" for word in ("gzip -1", "gzip -6")},
    }
    if source.is_file():
        shells["sha256sum, then cp"] = f"sha256sum {parent}/{name} && cp {parent}/{name} {quoted}"
        if shutil.which("openssl"):  # which has the processor's instructions for it, as Python has
            shells["openssl sha256, then cp"] = f"openssl sha256 {parent}/{name} && cp {parent}/{name} {quoted}"
    if shutil.which("pigz"):
        shells["tar, pigz -1, both digests"] = f"{tar} | {both.format('pigz -1')}"
    print(f"\n{title}\n{'':36}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'out MB':>9}{'ratio':>7}")
    commands = {label: ["bash", "-c", text] for label, text in shells.items()}
    for setting in settings:
        for threads in (0, 1) if setting in {"gzip", "zstd"} else (0,):
            label = f"ours, {setting}" + (", one thread" if threads else "")
            commands[label] = [sys.executable, "-c", OURS, str(source), setting, str(out), str(threads)]
    for path in zips:
        commands[f"ours, auto, out of a {path.stem} zip"] = [
            sys.executable,
            "-c",
            OURS,
            str(path),
            "auto",
            str(out),
            "0",
        ]
    total = size(source)
    for label, argv in commands.items():
        runs = []
        for _ in range(TIMES):
            remove(out)
            runs.append(measure(argv))
        best, made = min(runs, key=lambda run: run.wall), size(out)
        peak = max(run.peak for run in runs)
        print(f"{label:36}{best.wall:8.2f}{best.cpu:8.2f}{peak:9.0f}{made / 1e6:9.0f}{made / total:7.3f}")
    remove(out)


def size(path: Path) -> int:
    """Give the bytes of a file or of all files in a folder."""
    return path.stat().st_size if path.is_file() else sum(file.lstat().st_size for file in path.rglob("*"))


def remove(path: Path) -> None:
    """Remove a file or folder, if it's there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def measure(argv: list[str]) -> Measured:
    """Run a command; `wait4` tells what the kernel counted of it and of the children that it waited for."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        here = Path(__file__).resolve().parent.parent
        process = subprocess.Popen(argv, stdout=said, stderr=subprocess.DEVNULL, cwd=here)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{shlex.join(argv[:3])[:200]} ended with {process.returncode}")
        said.seek(0)
        return Measured(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said.read())


if __name__ == "__main__":
    main()
