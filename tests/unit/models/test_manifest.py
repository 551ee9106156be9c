from __future__ import annotations

import json
from typing import Any

import pytest

from packager.errors import ManifestError
from packager.models.manifest import ArtifactManifest

NAME = "odahuflow.project.yaml"
GOOD = """\
binaries: {type: python, dependencies: conda, conda_path: ./m/conda.yaml}
model: {name: wine, version: 1.0, workDir: m/, entrypoint: a.b}
"""


def read(text: str | bytes) -> ArtifactManifest:
    return ArtifactManifest.from_bytes(text if isinstance(text, bytes) else text.encode(), NAME)


@pytest.mark.parametrize(
    "version",
    ["1.0", "1.10", "1", "007", "1e3", "0x10", "0o17", "1_000", "2024-05-06", "on", "no", "true", ".inf", "1:30"],
)
def test_versions_keep_their_text(version: str) -> None:
    text = GOOD.replace("1.0", version) + f"odahuflowVersion: {version}\ntoolchain: {{name: x, version: {version}}}\n"

    manifest = read(text)

    assert manifest.model.version == version
    assert manifest.odahuflow_version == version
    assert manifest.toolchain.version == version


@pytest.mark.parametrize("name", ["1.50", "yes", "2024-01-01", "12"])
def test_names_keep_their_text(name: str) -> None:
    assert read(GOOD.replace("wine", name)).model.name == name


@pytest.mark.parametrize("null", ["", "null", "~", "Null"])
def test_null_is_absent(null: str) -> None:
    manifest = read(GOOD + f"odahuflowVersion: {null}\ntoolchain: {null}\noutput: {null}\n")

    assert manifest.odahuflow_version == ""
    assert manifest.toolchain.name == ""


def test_null_in_a_section_is_absent() -> None:
    manifest = read(GOOD.replace("conda_path", "requirements_path: null, conda_path") + "toolchain: {name: ~}\n")

    assert manifest.binaries.requirements_path is None
    assert manifest.toolchain.name == ""


def test_paths_are_normal_and_unknown_keys_ignored() -> None:
    manifest = read(GOOD + "somethingNew: [1, {a: b}]\n")

    assert manifest.binaries.dependencies_path == "m/conda.yaml"
    assert manifest.model.work_dir == "m"


def test_pip_names_its_file() -> None:
    manifest = read(GOOD.replace("conda, conda_path: ./m/conda.yaml", "pip, requirements_path: r.txt"))

    assert manifest.binaries.dependencies_path == "r.txt"


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_json(indent: int | str | None, start: str) -> None:
    values: dict[str, Any] = {
        "binaries": {"type": "python", "dependencies": "conda", "conda_path": "m/c.yaml", "requirements_path": None},
        "model": {"name": "wine 🍷", "version": 1.5, "workDir": "m", "entrypoint": "e"},
    }
    text = start + json.dumps(values, indent=indent).replace("1.5", "1.50")

    manifest = read(text)

    assert manifest.model.version == "1.50"
    assert manifest.model.name == "wine 🍷"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a mapping"),
        ("just text", "is not a mapping"),
        ("- a\n- b\n", "is not a mapping"),
        ("[1]", "is not a mapping"),
        ("a: [", "neither YAML nor JSON: line"),
        ("{a: b", "neither YAML nor JSON: line"),
        (b"\xffa\0", "neither YAML nor JSON"),
        ("a: \x01", "neither YAML nor JSON"),
        ("a: &x [1]\nb: *x\n", "line 1: anchors and aliases are not allowed"),
        ("a: *x\n", "anchors and aliases are not allowed"),
        ("a: !!python/object/apply:os.system [id]\n", "neither YAML nor JSON: line 1: could not determine"),
        ("a: !!float 1.0\n", "neither YAML nor JSON"),
        ("a: !!timestamp x\n", "neither YAML nor JSON"),
        ("--- {a: b}\n--- {c: d}\n", "neither YAML nor JSON"),
        ("[" * 100_000, "neither YAML nor JSON: it is nested too deeply"),
        ('{"a":' * 100_000, "neither YAML nor JSON: it is nested too deeply"),
        ("#" * 1_048_577, "larger than 1,048,576 bytes"),
        ("a: " + "'" + "x" * 500 + "\n", "neither YAML nor JSON"),
    ],
)
def test_what_can_t_be_read(text: str | bytes, says: str) -> None:
    with pytest.raises(ManifestError) as caught:
        read(text)

    assert says in caught.value.message
    assert caught.value.message.startswith(NAME)
    assert len(caught.value.message) < 250
    assert caught.value.exit_code == 11


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("binaries:", "binary:", "binaries is missing"),
        ("model:", "models:", "model is missing"),
        ("model: {", "model: []\nx: {", "model must be a mapping, not a list"),
        ("type: python", "type: java", "binaries.type is 'java', which is not supported; supported: python"),
        ("type: python, ", "", "binaries.type is missing"),
        (": conda,", ": npm,", "binaries.dependencies is 'npm', which is not supported; supported: conda, pip"),
        ("dependencies: conda, ", "", "binaries.dependencies is missing"),
        (", conda_path: ./m/conda.yaml", "", "binaries.conda_path is missing; with dependencies: conda"),
        ("./m/conda.yaml", "null", "binaries.conda_path is missing"),
        (": conda,", ": pip,", "binaries.requirements_path is missing; with dependencies: pip"),
        ("./m/conda.yaml", "/etc/conda.yaml", "binaries.conda_path '/etc/conda.yaml' leaves the archive"),
        ("./m/conda.yaml", "m/../../c", "binaries.conda_path 'm/../../c' leaves the archive"),
        ("./m/conda.yaml", '"a\\nb"', "binaries.conda_path must be one line"),
        ("./m/conda.yaml", "[a]", "binaries.conda_path must be text, not a list"),
        ("m/,", "../m,", "model.workDir '../m' leaves the archive"),
        ("workDir: m/, ", "", "model.workDir is missing"),
        ("a.b", "a-b", "model.entrypoint is 'a-b', which is not a Python module"),
        ("a.b", '"a\\n"', "model.entrypoint is"),
        ("wine", "''", "model.name is empty"),
        ("1.0", "''", "model.version is empty"),
        ("1.0", "", "model.version is missing"),
        ("wine", '"a\\x1bb"', "model.name must be one line without control characters"),
        ("wine", "{a: b}", "model.name must be text, not a dict"),
    ],
)
def test_what_is_wrong(old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ManifestError) as caught:
        read(GOOD.replace(old, new))

    assert f"\n  - {says}" in caught.value.message
    assert caught.value.message.count("\n") == 1
    assert caught.value.hint
    assert caught.value.exit_code == 11


def test_everything_wrong_is_in_one_error() -> None:
    with pytest.raises(ManifestError) as caught:
        read("binaries: {type: r, dependencies: conda}\nmodel: {name: wine, workDir: /m, entrypoint: 1}\n")

    assert [line.split()[1] for line in caught.value.message.splitlines()[1:]] == [
        "binaries.type", "binaries.conda_path", "model.version", "model.workDir", "model.entrypoint",
    ]  # fmt: skip


def test_long_values_are_cut() -> None:
    with pytest.raises(ManifestError) as caught:
        read(GOOD.replace("python", "x" * 10_000))

    assert len(caught.value.message) < 300
