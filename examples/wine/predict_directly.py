"""Print what a model answers when it is called directly, without an image: to compare with what its image answers.

python predict_directly.py wine-1.0.zip request.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import zipfile
from pathlib import Path


def main() -> None:
    """Unpack the archive, call its entry point with the request, print the answer as the REST service would."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="the model, made by train.py")
    parser.add_argument("request", type=Path, help='a JSON file: {"columns": [...], "data": [[...]]}')
    arguments = parser.parse_args()

    request = json.loads(arguments.request.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(arguments.archive) as stream:
        stream.extractall(folder)
        sys.path.insert(0, str(Path(folder, "odahuflow_model")))
        model = importlib.import_module("entrypoint")
        model.init()
        prediction, columns = model.predict_on_matrix(request["data"], request.get("columns"))
    print(json.dumps({"prediction": prediction, "columns": columns}))


if __name__ == "__main__":
    main()
