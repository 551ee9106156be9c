"""Measure a large model on its way from the archive into the build context, beside a plain copy of the same bytes.

Usage: python bench/extraction.py [GIGABYTES, 3 unless told] [stored|deflated|both, both unless told]

Each measurement runs in a process of its own; memory is `ru_maxrss` beyond that of an interpreter that only imports the
same modules. The copy is `shutil.copyfile` of the unpacked content. Files lie in TMPDIR and are removed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CHUNK = 1 << 20
MANIFEST = """\
binaries: {type: python, dependencies: conda, conda_path: model/conda.yaml}
model: {name: bench, version: 1.0, workDir: model, entrypoint: entry}
"""
METHODS = {"stored": zipfile.ZIP_STORED, "deflated": zipfile.ZIP_DEFLATED}

IMPORTS = """
import resource, shutil, sys, time
from pathlib import Path, PurePosixPath
from packager.sources.artifact import ArtifactLimits, open_artifact
from packager.image.context import write_context
from packager.models.reference import Reference
from packager.image.plan import BaseImage, Content, ImageConfig, ImagePlan, Layer
from packager.logs.progress import SilentReporter
from packager.settings import Settings
"""
UNPACK = """
limits = ArtifactLimits.from_settings(Settings())
start = time.perf_counter()
work = Path(sys.argv[2])
artifact = open_artifact(Path(sys.argv[1]), work, limits=limits, reporter=SilentReporter())
"""
# The second of the two, so that the first is timed alone.
CONTEXT = (
    UNPACK
    + """
contents = (Content(source=artifact.root, destination=PurePosixPath("/opt/odahu/model")),)
base = BaseImage(reference=Reference.parse("base"))
plan = ImagePlan(base=base, steps=(Layer(name="model", contents=contents),), config=ImageConfig())
start = time.perf_counter()
write_context(plan, work / "context", ours=work)
"""
)
COPY = """
start = time.perf_counter()
shutil.copyfile(sys.argv[1], sys.argv[2])
"""
NOTHING = "start = time.perf_counter()"
REPORT = """
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main() -> None:
    """Print the table."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    chosen = sys.argv[2] if len(sys.argv) > 2 else "both"  # noqa: PLR2004
    size = int(gigabytes * 1e9)
    print(
        f"{'method':10}{'packed MB':>10}{'unpack s':>10}{'context s':>10}{'copy s':>10}{'ratio':>8}"
        f"{'RSS above bare MB':>19}"
    )
    for method in METHODS if chosen == "both" else [chosen]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            source = folder / "model.zip"
            write_model(source, size, METHODS[method])
            _, bare = measure(NOTHING)
            seconds, _ = measure(UNPACK, source, folder / "unpacked")
            shutil.rmtree(folder / "unpacked")
            linked, peak = measure(CONTEXT, source, folder / "workspace")
            content = folder / "workspace" / "artifact" / "model" / "weights.bin"
            copied, _ = measure(COPY, content, folder / "copy")
            print(
                f"{method:10}{source.stat().st_size / 1e6:10.0f}{seconds:10.2f}{linked:10.2f}{copied:10.2f}"
                f"{(seconds + linked) / copied:8.2f}{(peak - bare) / 1024:19.1f}"
            )


def write_model(path: Path, size: int, method: int) -> None:
    """Write a model with one large file, in chunks that `content` makes."""
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive:
        archive.writestr("odahuflow.project.yaml", MANIFEST)
        archive.writestr("model/conda.yaml", "dependencies: []\n")
        archive.writestr("model/entry.py", "")
        with archive.open("model/weights.bin", "w", force_zip64=True) as out:
            for start in range(0, size, CHUNK):
                out.write(content(min(CHUNK, size - start), method))


def content(size: int, method: int) -> bytes:
    """Make random bytes; when deflated, every other one is zero, so that the archive is about a half in size."""
    data = bytearray(os.urandom(size))
    if method == zipfile.ZIP_DEFLATED:
        data[::2] = bytes(len(data[::2]))
    return bytes(data)


def measure(code: str, *paths: Path) -> tuple[float, int]:
    """Run the code in a process of its own; give its seconds and its peak memory in KiB, as Linux counts it."""
    os.sync()
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS + code + REPORT, *map(str, paths)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak)


if __name__ == "__main__":
    main()
