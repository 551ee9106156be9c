"""Train a classifier on scikit-learn's wine data and wrap it as a GPPI archive.

    python train.py wine-1.0.zip

The same versions of the same packages give the same bytes, run after run.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import joblib
import sklearn
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
PROJECT = f"""\
binaries:
  type: python
  dependencies: conda
  conda_path: odahuflow_model/conda.yaml
model:
  name: wine
  version: "1.0"
  workDir: odahuflow_model
  entrypoint: entrypoint
odahuflowVersion: "1.0"
toolchain:
  name: scikit-learn
  version: {sklearn.__version__}
"""


def main() -> None:
    """Train, report the accuracy and write the archive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="the zip to write")
    archive: Path = parser.parse_args().archive

    wine = load_wine()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    accuracy = cross_val_score(model, wine.data, wine.target, cv=5).mean()
    model.fit(wine.data, wine.target)
    print(f"{len(wine.data)} wines, {len(wine.feature_names)} features, accuracy {accuracy:.3f} (5-fold)")

    archive.parent.mkdir(parents=True, exist_ok=True)
    write_zip(
        archive,
        {
            "odahuflow.project.yaml": PROJECT.encode(),
            "odahuflow_model/conda.yaml": conda_file().encode(),
            "odahuflow_model/entrypoint.py": (HERE / "model/odahuflow_model/entrypoint.py").read_bytes(),
            "odahuflow_model/features.json": json.dumps(features(wine), indent=2).encode(),
            "odahuflow_model/model.joblib": dump(model),
        },
    )
    print(archive)


def conda_file() -> str:
    """Pin what the model was trained with: a pickled model is only sure to load there."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pins = "".join(f"      - {pin}\n" for pin in installed(HERE / "requirements.txt"))
    return f"name: wine\nchannels:\n  - conda-forge\ndependencies:\n  - python={python}\n  - pip:\n{pins}"


def installed(requirements: Path) -> list[str]:
    """Give the packages of a requirements file in the versions that are installed here."""
    wanted = {line.split("==")[0] for line in requirements.read_text(encoding="utf-8").splitlines()}
    return sorted(f"{package.name}=={package.version}" for package in distributions() if package.name in wanted)


def features(wine: Any) -> list[dict[str, Any]]:  # noqa: ANN401  (scikit-learn's Bunch has no types)
    """Describe the input columns; the first wine of the data is the example."""
    return [
        {"name": name, "type": "number", "required": True, "example": float(value)}
        for name, value in zip(wine.feature_names, wine.data[0], strict=True)
    ]


def dump(model: object) -> bytes:
    """Pickle the model the way scikit-learn recommends."""
    stream = io.BytesIO()
    joblib.dump(model, stream)
    return stream.getvalue()


def write_zip(archive: Path, files: dict[str, bytes]) -> None:
    """Write a Deflate zip in which nothing depends on when and where it was made."""
    with zipfile.ZipFile(archive, "w") as stream:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, so that the mode counts
            entry.external_attr = 0o100644 << 16
            stream.writestr(entry, content)


if __name__ == "__main__":
    main()
