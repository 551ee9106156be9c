"""Measure the peak memory of a Job that packages a model of 2 GB with Kaniko, beside Kaniko alone on the same context.

Usage: python bench/kaniko_memory.py [GIGABYTES, 2 unless told]

All runs are in the Job image (`make packager-image`), by podman as in `make kaniko-local`, with a registry of this
machine's own. Memory is the largest VmHWM (proc(5)) of each program in the container: the page cache is not in it. The
model's bytes are random. Ends with a word, and exit code 0, where Kaniko's executor can't be had.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT))

from tests.integration.packaging import CONDA_FORGE, MODELS, PODMAN, RUN_WORDS  # noqa: E402
from tests.integration.pod import RULES  # noqa: E402
from tests.integration.registry import serve_registry  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 1 << 20


def write_model(folder: Path, size: int) -> None:
    """Copy the tests' wine model and put weights into it."""
    shutil.copytree(MODELS / "wine", folder)
    conda_file = "name: wine\nchannels: [conda-forge]\ndependencies: [python]\n"
    (folder / "odahuflow_model/conda.yaml").write_text(conda_file)
    with (folder / "odahuflow_model/weights.bin").open("wb") as file:
        for _ in range(size // CHUNK):
            file.write(os.urandom(CHUNK))


@contextmanager
def watched() -> Iterator[dict[str, int]]:
    """Collect the largest VmHWM, in kB, of each program of the Job image while the block runs."""
    peaks: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError, StopIteration):
                    program = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
                    if program.startswith("/kaniko/"):
                        lines = (process / "status").read_text().splitlines()
                        peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
                        peaks[program] = max(peak, peaks.get(program, 0))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def run(label: str, image: str, volumes: dict[str, str], options: list[str], words: list[str]) -> None:
    """Run the image and print a line of the table for each of its programs."""
    mounts = [word for place, inside in volumes.items() for word in ("--volume", f"{place}:{inside}")]
    command = [*PODMAN, "run", "--rm", *RUN_WORDS, *RULES, *mounts, *options, image, *words]
    start = time.perf_counter()
    with watched() as peaks:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{label} exited with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    for program, peak in sorted(peaks.items()):
        print(f"{label:26}{program:32}{peak / 1024:10.0f}{time.perf_counter() - start:8.1f}")


def main() -> None:
    """Print the table."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    image = subprocess.run([PROJECT / "local/packager_image.sh"], check=False, stdout=subprocess.PIPE, text=True)
    if image.returncode:
        print("LEFT OUT: the memory of a Job with Kaniko: its executor can't be had here")
        return
    job = image.stdout.strip()
    base = subprocess.run(
        [PROJECT / "local/base_image.sh"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    channel = PROJECT / ".cache/channel"
    subprocess.run([sys.executable, PROJECT / "local/channel.py", channel], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as name, serve_registry(Path(name, "registry")) as registry:
        folder = Path(name)
        write_model(folder / "model", int(gigabytes * 1e9))
        (folder / "out").mkdir()
        push = ["buildah", "push", "--quiet", "--tls-verify=false", base, f"docker://{registry.host}/base:1"]
        subprocess.run(push, check=True, stdout=subprocess.DEVNULL)
        volumes = {
            str(folder / "model"): "/mnt/model:ro",
            str(channel): "/mnt/channel:ro",
            str(folder / "out"): "/mnt/out",
        }
        options = ["--env", f"PACKAGER_CONDA_MIRRORS={CONDA_FORGE}=file:///mnt/channel"]
        words = ["--engine", "kaniko", "-a", f"dockerfileBaseImage={registry.host}/base:1"]
        print(f"{'run':26}{'program':32}{'peak MB':>10}{'s':>8}")
        run("rendering only", job, volumes, options, ["render", "/mnt/model", "--context", "/mnt/out/context", *words])
        build = ["build", "/mnt/model", *words, "--output", f"docker://{registry.host}/job:1"]
        run("the whole Job", job, volumes, options, build)
        for label, more in {
            "kaniko alone": [],
            "kaniko alone, as we do": ["--compressed-caching=false", "--snapshot-mode=full"],
        }.items():
            destination = ["--destination", f"{registry.host}/alone:1", "--insecure-registry", registry.host]
            entry = [*options, "--entrypoint", "/kaniko/executor"]
            run(label, job, volumes, entry, ["--context", "dir:///mnt/out/context", *destination, *more])


if __name__ == "__main__":
    main()
