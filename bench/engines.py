"""Compare the engines, side by side in one run: the same model on the same base, into one registry.

Usage: python bench/engines.py [--sizes 5,500] [--rounds 3] [--output build/bench]

Sizes are megabytes of incompressible model; 5000 is for whoever has the time and 40 GB of disk. Of each size:

    oci, cold        an environment and a repository that nobody has seen
    oci, warm        the same environment, another model: what re-packaging takes
    buildah, cold    an empty container storage
    buildah, warm    its layers of the last build
    kaniko, cold     no layer in its cache; warm: all but the model's. Left out where its executor can't be had
    crane append     the yardstick: one layer, made before, appended to the base by go-containerregistry
    hash and copy    the floor: the model's bytes hashed once and written once to the registry's disk

Times are medians of interleaved rounds, of whole processes. The bytes sent are those of one further run through a
counting proxy. Needs docker-registry, buildah, mmdebstrap and crane (Go); `make bench` brings them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from measure import Cost, counting, watch  # noqa: E402

from tests.integration.registry import Registry, serve_registry  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST = """\
binaries: {type: python, dependencies: conda, conda_path: model/conda.yaml}
model: {name: bench, version: "1", workDir: model, entrypoint: entry}
"""
CONDA_FILE = "name: bench\nchannels: [conda-forge]\ndependencies: [python]\n"
ENTRY = """\
def init():
    return "matrix"


def predict_on_matrix(matrix, provided_columns_names=None):
    return matrix, ["x"]
"""
FORGE = "https://conda.anaconda.org/conda-forge"
YARDSTICK, FLOOR = "crane append", "hash and copy"


@dataclass
class Lab:
    """What all measurements share."""

    folder: Path
    registry: Registry
    crane: str
    job_image: str | None
    model: Path | None = None
    layer: Path | None = None
    runs: int = 0

    def fresh(self, word: str) -> str:
        """Return a name that was not used before."""
        self.runs += 1
        return f"{word}-{self.runs}"

    def change_model(self, megabytes: int) -> None:
        """Make another model of that size, and the layer with it that crane is given."""
        folder = self.folder / "model"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "model").mkdir(parents=True)
        (folder / "odahuflow.project.yaml").write_text(MANIFEST)
        (folder / "model/conda.yaml").write_text(CONDA_FILE)
        (folder / "model/entry.py").write_text(ENTRY)
        with (folder / "model/weights.bin").open("wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(1 << 20))
        self.model = self.folder / "model.zip"
        with zipfile.ZipFile(self.model, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(path, path.relative_to(folder))
        self.layer = self.folder / "layer.tar"
        with tarfile.open(self.layer, "w") as tar:
            tar.add(folder, "opt/odahu/model")

    def packager(self, engine: str, repository: str, place: Path, host: str) -> Cost:
        """Package the model; `place` holds the engine's caches and storage."""
        place.mkdir(parents=True, exist_ok=True)
        storage = place / "storage.conf"
        storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{place / "graph"}"\nrunroot = "{place / "run"}"\n'
        )
        channel = ROOT / ".cache" / "channel"
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PACKAGER_")},
            "HOME": str(place),
            "PACKAGER_CACHE_DIR": str(place / "cache"),
            "PACKAGER_CONDA_MIRRORS": f"{FORGE}={channel.as_uri()}",
            "CONTAINERS_STORAGE_CONF": str(storage),
        }
        words = [
            *("-a", f"dockerfileBaseImage={host}/base/image:1", "--engine", engine),
            *("--output", f"docker://{host}/{repository}:latest"),
        ]
        argv = [str(Path(sys.executable).parent / "packager"), "build", str(self.model), *words]
        return watch(argv, env=environ, cwd=place)

    def kaniko(self, repository: str, host: str) -> Cost:
        """Package the model in the Job image, run as a pod would run it."""
        podman = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--network", "host"]
        podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--cap-drop", "all"]
        for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "SETFCAP", "KILL"):
            podman += ["--cap-add", name]
        podman += [
            "--volume",
            f"{self.model}:/mnt/model.zip:ro",
            "--volume",
            f"{ROOT / '.cache/channel'}:/mnt/channel:ro",
        ]
        podman += ["--env", f"PACKAGER_CONDA_MIRRORS={FORGE}=file:///mnt/channel", str(self.job_image)]
        words = ["build", "/mnt/model.zip", "-a", f"dockerfileBaseImage={host}/base/image:1", "--engine", "kaniko"]
        words += ["--output", f"docker://{host}/{repository}:latest"]
        return watch([*podman, *words], env=os.environ, cwd=self.folder)

    def append(self, repository: str, host: str) -> Cost:
        """Append the layer with crane."""
        argv = [self.crane, "append", "--insecure", "-b", f"{host}/base/image:1", "-f", str(self.layer)]
        return watch([*argv, "-t", f"{host}/{repository}:latest"], env=os.environ, cwd=self.folder)

    def copy(self) -> Cost:
        """Hash the model's bytes and write them to the registry's disk."""
        program = (
            "import hashlib, sys\n"
            "digest = hashlib.sha256()\n"
            "with open(sys.argv[1], 'rb') as source, open(sys.argv[2], 'wb') as target:\n"
            "    while chunk := source.read(1 << 20):\n"
            "        digest.update(chunk)\n"
            "        target.write(chunk)\n"
        )
        target = self.registry.folder / "copy"
        cost = watch([sys.executable, "-c", program, str(self.layer), str(target)], env=os.environ, cwd=self.folder)
        target.unlink()
        return cost


def scenarios(lab: Lab, host: str) -> dict[str, Callable[[], Cost]]:
    """Return what is compared, each as a run with the model of the moment; warm ones follow their cold ones."""
    known: dict[str, tuple[str, Path]] = {}

    def cold(engine: str) -> Cost:
        repository, place = lab.fresh(engine), lab.folder / lab.fresh(engine)
        known[engine] = (repository, place)
        return lab.packager(engine, repository, place, host)

    def warm(engine: str) -> Cost:
        repository, place = known[engine]
        return lab.packager(engine, repository, place, host)

    def kaniko(*, fresh: bool) -> Cost:
        if fresh:
            known["kaniko"] = (lab.fresh("kaniko"), lab.folder)
        return lab.kaniko(known["kaniko"][0], host)

    table: dict[str, Callable[[], Cost]] = {
        "oci, cold": lambda: cold("oci"),
        "oci, warm": lambda: warm("oci"),
        "buildah, cold": lambda: cold("buildah"),
        "buildah, warm": lambda: warm("buildah"),
    }
    if lab.job_image:
        table |= {"kaniko, cold": lambda: kaniko(fresh=True), "kaniko, warm": lambda: kaniko(fresh=False)}
    return table | {YARDSTICK: lambda: lab.append(lab.fresh("crane"), host), FLOOR: lab.copy}


def measure(lab: Lab, megabytes: int, rounds: int) -> dict[str, Cost]:
    """Measure every scenario in interleaved rounds, each with a model of its own; then count the bytes of one more."""
    costs: dict[str, list[Cost]] = {}
    for number in range(rounds):
        for name, run in scenarios(lab, lab.registry.host).items():
            lab.change_model(megabytes)
            costs.setdefault(name, []).append(run())
            print(f"  round {number + 1}: {name}: {costs[name][-1].seconds:.2f} s", file=sys.stderr)
    medians = {
        name: Cost(
            seconds=statistics.median(cost.seconds for cost in found),
            cpu=statistics.median(cost.cpu for cost in found),
            memory=max(cost.memory for cost in found),
        )
        for name, found in costs.items()
    }
    with counting(lab.registry.host) as counter:
        for name, run in scenarios(lab, counter.host).items():
            lab.change_model(megabytes)
            before = counter.sent
            run()
            medians[name] = replace(medians[name], sent=counter.sent - before)
    return medians


def show(megabytes: int, costs: dict[str, Cost]) -> None:
    """Print the table of one size."""
    yardstick = costs[YARDSTICK]
    print(f"\n{megabytes} MB of incompressible model")
    print(f"{'':16}{'seconds':>9}{'of crane':>10}{'cpu s':>8}{'memory MB':>11}{'sent MB':>10}")
    for name, cost in costs.items():
        ratio = f"{cost.seconds / yardstick.seconds:.2f} x"
        sent = f"{cost.sent / 1e6:.2f}" if cost.sent else "-"
        print(f"{name:16}{cost.seconds:9.2f}{ratio:>10}{cost.cpu:8.2f}{cost.memory / 1e6:11.0f}{sent:>10}")


def plot(results: dict[int, dict[str, Cost]], file: Path) -> None:
    """Draw a bar a scenario, a panel a size."""
    import matplotlib as mpl  # noqa: PLC0415  (only here)

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, panels = plt.subplots(1, len(results), figsize=(7 * len(results), 4.5), squeeze=False)
    for panel, (megabytes, costs) in zip(panels[0], results.items(), strict=True):
        names = list(costs)
        bars = panel.barh(names, [costs[name].seconds for name in names], color="#4878a8")
        panel.bar_label(bars, labels=[f"{costs[name].seconds:.2f} s" for name in names], padding=3)
        panel.invert_yaxis()
        panel.margins(x=0.15)
        panel.set_title(f"{megabytes} MB model: the whole process")
        panel.set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def find_job_image() -> str | None:
    """Return the packager's Job image with Kaniko in it, or None where there is no executor."""
    done = subprocess.run(["local/packager_image.sh"], cwd=ROOT, stdout=subprocess.PIPE, check=False, text=True)
    return done.stdout.split()[-1] if done.returncode == 0 else None


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="5,500")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench")
    asked = parser.parse_args()
    sizes = [int(size) for size in asked.sizes.split(",")]
    asked.output.mkdir(parents=True, exist_ok=True)
    crane = subprocess.run(["local/go_program.sh", "crane"], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    subprocess.run([sys.executable, "local/channel.py", ".cache/channel"], cwd=ROOT, check=True)
    base = subprocess.run(["local/base_image.sh", "base"], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    job_image = find_job_image()
    if job_image is None:
        print("kaniko is left out: its executor can't be had here", file=sys.stderr)
    results: dict[int, dict[str, Cost]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, serve_registry(Path(name) / "registry") as registry:
        lab = Lab(folder=Path(name), registry=registry, crane=crane.stdout.strip(), job_image=job_image)
        push = ["buildah", "push", "--quiet", "--tls-verify=false", base.stdout.split()[-1]]
        subprocess.run([*push, f"docker://{registry.host}/base/image:1"], check=True)
        try:
            for megabytes in sizes:
                results[megabytes] = measure(lab, megabytes, asked.rounds)
        finally:
            for place in lab.folder.glob("buildah-*"):
                environ = {**os.environ, "CONTAINERS_STORAGE_CONF": str(place / "storage.conf")}
                subprocess.run(["buildah", "rmi", "--all", "--force"], env=environ, check=False, capture_output=True)
                subprocess.run(["umount", str(place / "graph" / "overlay")], check=False, capture_output=True)
    for megabytes, costs in results.items():
        show(megabytes, costs)
    document = {
        size: {name: {**vars(cost), "output": ""} for name, cost in costs.items()} for size, costs in results.items()
    }
    (asked.output / "engines.json").write_text(json.dumps(document, indent=1))
    plot(results, asked.output / "engines.png")
    print(f"\n{asked.output / 'engines.png'}")


if __name__ == "__main__":
    main()
