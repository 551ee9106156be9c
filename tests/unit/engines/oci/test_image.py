"""plan, base config and layers -> the image's two documents."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest

from packager.engines.oci.image import AddedLayer, ImageFormat, check_base, make_config, make_manifest
from packager.errors import BuildError
from packager.image.plan import ImageConfig, ImagePlan
from packager.image.planner import make_plan
from packager.models.image import Descriptor, RemoteImage, checked_digest
from packager.models.reference import Reference
from packager.settings import Settings
from tests.unit.builders import base as base_image
from tests.unit.builders import prepared, request

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
OCI_TAR, DOCKER_TAR = f"{OCI}layer.v1.tar", f"{DOCKER}image.rootfs.diff.tar"


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


def layer(letter: str, media_type: str = f"{OCI_TAR}+gzip") -> Descriptor:
    return Descriptor(media_type=media_type, digest=digest(letter), size=10)


def remote(*layers: Descriptor, config: dict[str, Any] | None = None, **changes: Any) -> RemoteImage:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-01T00:00:00Z",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [digest("f")] * len(layers)},
        "history": [{"created_by": "first"}] * len(layers),
        **changes,
    }
    return RemoteImage(digest=digest("9"), config=document, layers=layers)


OURS = AddedLayer(name="model", descriptor=layer("b"), diff_id=digest("c"))


def plan(**config: Any) -> ImagePlan:
    made = make_plan(request(), prepared())
    return replace(made, config=ImageConfig(**config)) if config else made


def written(made: ImagePlan, base: RemoteImage, image_format: ImageFormat = "oci") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(make_config(made, base, [OURS], image_format).data)
    return document


def test_a_variable_that_is_there_keeps_its_place() -> None:
    base = remote(layer("a"), config={"Env": ["A=1", "PATH=/bin", "B=x=y", "EMPTY="]})
    env = written(plan(env=(("PATH", "/env:/bin"), ("NEW", "n"))), base)["config"]["Env"]
    assert env == ["A=1", "PATH=/env:/bin", "B=x=y", "EMPTY=", "NEW=n"]


def test_labels_and_ports_are_added_and_the_command_is_replaced() -> None:
    config = {
        "Labels": {"a": "1", "b": "2"},
        "ExposedPorts": {"80/tcp": {}},
        "Entrypoint": ["/old"],
        "Cmd": ["old"],
        "WorkingDir": "/old",
    }
    changed = plan(labels=(("b", "3"),), exposed_port=5000, entrypoint=("/py", "x"), working_dir="/new")
    assert written(changed, remote(layer("a"), config=config))["config"] == {
        "Labels": {"a": "1", "b": "3"},
        "ExposedPorts": {"80/tcp": {}, "5000/tcp": {}},
        "Entrypoint": ["/py", "x"],
        "WorkingDir": "/new",
    }


@pytest.mark.parametrize(("asked", "expected"), [(None, "ann"), ("1000:1000", "1000:1000")])
def test_the_user_is_the_bases_or_the_plans(asked: str | None, expected: str) -> None:
    base = remote(layer("a"), config={"User": "ann"})
    assert written(plan(user=asked, entrypoint=("x",)), base)["config"]["User"] == expected


def test_what_only_docker_knows_stays_in_dockers_format_alone() -> None:
    config = {
        "Healthcheck": {"Test": ["CMD", "x"]},
        "Shell": ["/bin/sh"],
        "StopSignal": "SIGINT",
        "Volumes": {"/v": {}},
    }
    base = remote(layer("a"), config=config, docker_version="20", container="abc", container_config={"Cmd": ["x"]})
    oci, docker = written(plan(), base), written(plan(), base, "docker")
    assert {"Healthcheck", "Shell"}.isdisjoint(oci["config"])
    assert {"Healthcheck", "Shell"} <= docker["config"].keys()
    for document in (oci, docker):
        assert {"StopSignal", "Volumes"} <= document["config"].keys()
        assert {"docker_version", "container", "container_config"}.isdisjoint(document)


def test_layers_history_and_times() -> None:
    document = written(plan(), remote(layer("a"), layer("d")))
    assert document["rootfs"]["diff_ids"] == [digest("f"), digest("f"), digest("c")]
    assert [entry["created_by"] for entry in document["history"]] == [
        "first",
        "first",
        "packager: model",
        "packager: config",
    ]
    assert document["created"] == "1980-01-01T00:00:00Z"
    assert document["architecture"] == "amd64"


@pytest.mark.parametrize(
    "history", [None, [], [{"created_by": "x", "empty_layer": True}], [{"created_by": "x"}, {"empty_layer": True}]]
)
def test_a_history_has_an_entry_for_each_layer(history: list[dict[str, Any]] | None) -> None:
    document = written(plan(), remote(layer("a"), layer("d"), history=history))
    assert sum(1 for entry in document["history"] if not entry.get("empty_layer")) == 3


@pytest.mark.parametrize("rootfs", [None, {}, {"diff_ids": []}, {"diff_ids": [digest("a")] * 2}])
def test_a_config_that_does_not_fit_its_layers(rootfs: dict[str, Any] | None) -> None:
    with pytest.raises(BuildError, match="has 1 layers and a config for"):
        make_config(plan(), remote(layer("a"), rootfs=rootfs), [], "oci")


def test_onbuild_is_refused() -> None:
    with pytest.raises(BuildError, match="can't run: ONBUILD RUN make") as caught:
        check_base(Reference.parse("r.io/base"), remote(layer("a"), config={"OnBuild": ["RUN make"]}))
    assert "--engine buildah" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "image_format", "expected"),
    [
        (OCI_TAR, "oci", OCI_TAR),
        (f"{DOCKER_TAR}.gzip", "oci", f"{OCI_TAR}+gzip"),
        (DOCKER_TAR, "oci", OCI_TAR),
        (f"{OCI_TAR}+zstd", "oci", f"{OCI_TAR}+zstd"),
        (f"{OCI_TAR}+gzip", "docker", f"{DOCKER_TAR}.gzip"),
        (OCI_TAR, "docker", DOCKER_TAR),
        (f"{DOCKER_TAR}.gzip", "docker", f"{DOCKER_TAR}.gzip"),
    ],
)
def test_media_types(given: str, image_format: ImageFormat, expected: str) -> None:
    base = remote(layer("a", given))
    config = make_config(plan(), base, [OURS], image_format)
    made = make_manifest(plan(), base, [OURS], config, image_format)
    document = json.loads(made.data)
    kind = OCI if image_format == "oci" else DOCKER
    assert document["layers"][0]["mediaType"] == expected
    assert {document["mediaType"], made.descriptor.media_type} == {
        f"{OCI}manifest.v1+json" if image_format == "oci" else f"{DOCKER}distribution.manifest.v2+json"
    }
    assert document["config"]["mediaType"].startswith(kind)
    assert document["config"]["size"] == len(config.data)
    assert ("annotations" in document) == (image_format == "oci")


def test_docker_has_no_zstd() -> None:
    base = remote(layer("a", f"{OCI_TAR}+zstd"))
    with pytest.raises(BuildError, match="doesn't support layers of type"):
        make_manifest(plan(), base, [], make_config(plan(), base, [], "docker"), "docker")


def test_equal_inputs_give_equal_bytes() -> None:
    base = remote(layer("a"), config={"Labels": {"z": "1", "a": "ü"}})
    shuffled = replace(base, config=dict(reversed(base.config.items())))
    first, second = (make_config(plan(), each, [OURS], "oci") for each in (base, shuffled))
    assert first == second
    assert make_manifest(plan(), base, [OURS], first, "oci") == make_manifest(plan(), shuffled, [OURS], second, "oci")


def test_the_path_of_a_layout_is_no_name() -> None:
    reference = Reference.parse_base("oci:layout")
    made = make_plan(request(), prepared(base=base_image(reference=reference)))
    base = remote(layer("a"))
    text = (
        make_config(made, base, [], "oci").data
        + make_manifest(made, base, [], make_config(made, base, [], "oci"), "oci").data
    )
    assert b"layout" not in text
    assert b"image.base.digest" in text


@pytest.mark.parametrize(
    "text", [None, 3, "", "sha256:ab", "sha256:../../../etc/passwd", "sha512:" + "a" * 128, digest("A")]
)
def test_digests_that_are_none(text: object) -> None:
    with pytest.raises(ValueError, match="is not a digest"):
        checked_digest(text)


def test_the_formats_are_the_settings() -> None:
    assert Settings.model_fields["image_format"].annotation is not None
    assert get_args(ImageFormat) == get_args(Settings.model_fields["image_format"].annotation)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"rootfs": [1]}, "rootfs"),
        ({"config": [1]}, "config"),
        ({"config": {"Env": [1]}}, "config.Env"),
        ({"config": {"Env": {"A": 1}}}, "config.Env"),
        ({"config": {"Labels": ["a"]}}, "config.Labels"),
        ({"config": {"ExposedPorts": ["80"]}}, "config.ExposedPorts"),
        ({"rootfs": {"diff_ids": [1]}}, "diff_ids"),
        ({"history": ["x"]}, "history"),
    ],
)
def test_a_base_whose_config_is_none_is_refused(config: dict[str, Any], part: str) -> None:
    image = RemoteImage(digest="sha256:" + "0" * 64, config=config, layers=(layer("a"),))
    with pytest.raises(BuildError, match=f"an invalid config: {part}"):
        check_base(Reference.parse("r.io/base"), image)
