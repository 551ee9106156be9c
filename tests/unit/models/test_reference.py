from __future__ import annotations

from pathlib import Path

import pytest

from packager.models.reference import Destination, Reference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.6", "docker.io/library/python:3.6"),
        ("ann/wine", "docker.io/ann/wine:latest"),
        ("gcr.io/project/wine:1", "gcr.io/project/wine:1"),
        ("a" * 63 + ".io:65535/wine:1", "a" * 63 + ".io:65535/wine:1"),
        ("localhost/wine", "localhost/wine:latest"),
        ("localhost:5000/wine:a", "localhost:5000/wine:a"),
        ("127.0.0.1:5000/a/b__c/d-e:T_.-", "127.0.0.1:5000/a/b__c/d-e:T_.-"),
        ("[::1]:5000/wine:1", "[::1]:5000/wine:1"),
        (f"gcr.io/wine@{DIGEST}", f"gcr.io/wine@{DIGEST}"),
        (f"gcr.io/wine:1@{DIGEST}", f"gcr.io/wine:1@{DIGEST}"),
    ],
)
def test_a_reference_is_read_with_its_host_spelled_out(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not a repository path"),
        ("https://gcr.io/wine", "scheme"),
        ("gcr.io/Wine", "'Wine'"),
        ("gcr.io/wine:", "empty tag"),
        ("gcr.io/wine:a b", "'a b'"),
        ("gcr.io/wine:" + "a" * 129, "tag"),
        ("gcr.io//wine", "repository path"),
        ("gcr.io/wine@sha256:12", "not a digest"),
        ("gcr.io/" + "a" * 256, "longer than 255"),
        ("gcr.io/a\nb", "repository path"),
        ("a..b/wine", "empty part"),
        (".gcr.io/wine", "empty part"),
        ("gcr.io./wine", "empty part"),
        ("gcr..io:5000/wine", "empty part"),
        ("a" * 64 + ".io/wine", "is too long"),
        ("a" * 64 + ":5000/wine", "is too long"),
        ("a." * 127 + "io/wine", "is too long"),
        ("gcr.io:65536/wine", "above 65535"),
        ("../wine", "not a repository path"),
    ],
)
def test_a_wrong_reference_is_refused_with_the_part_that_is_wrong(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("localhost:5000/a", True), ("127.0.0.1:1/a", True), ("[::1]:5/a", True), ("localhost.example.com/a", False)],
)
def test_only_this_machine_is_loopback(text: str, loopback: bool) -> None:
    assert Reference.parse(text).is_loopback is loopback


def test_a_destination_is_read_as_the_command_line_takes_it(tmp_path: Path) -> None:
    reference = Reference.parse("localhost/wine:1")
    assert str(Destination.parse("docker://gcr.io/wine:2", reference).reference) == "gcr.io/wine:2"
    archive = Destination.parse(f"oci-archive:{tmp_path}/wine.tar", reference)
    assert (archive.transport, archive.path, archive.reference) == ("oci-archive", tmp_path / "wine.tar", reference)
    assert str(archive) == f"oci-archive:{tmp_path}/wine.tar"


@pytest.mark.parametrize("text", ["wine", "docker:wine", "oci:", "ftp:wine", "docker-daemon:wine"])
def test_an_unknown_destination_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an output; write docker://"):
        Destination.parse(text, Reference.parse("a"))


@pytest.mark.parametrize(
    ("text", "layout", "tag"),
    [
        ("oci:/base", "oci:/base", None),
        ("oci:/base:1.0", "oci:/base", "1.0"),
        ("oci:/base:localhost/wine:1.0", "oci:/base", "localhost/wine:1.0"),
        ("oci:/base:localhost:5000/a/b@c+d", "oci:/base", "localhost:5000/a/b@c+d"),
        ("oci-archive:/base.tar", "oci-archive:/base.tar", None),
        ("oci-archive:/base.tar:1", "oci-archive:/base.tar", "1"),
        ("oci:base", f"oci:{Path.cwd()}/base", None),
        ("oci:./5000", f"oci:{Path.cwd()}/5000", None),
    ],
)
def test_a_base_in_a_layout(text: str, layout: str, tag: str | None) -> None:
    reference = Reference.parse_base(text)
    assert (reference.layout, reference.tag) == (layout, tag)
    assert str(reference) == layout + (f":{tag}" if tag else "")


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("python:3", "docker.io/library/python:3"),
        ("oci", "docker.io/library/oci:latest"),
        ("oci:5000", "docker.io/library/oci:5000"),
        ("oci:5000/base:1", "oci:5000/base:1"),
        ("oci.io/base:1", "oci.io/base:1"),
        ("docker-archive/base:1", "docker.io/docker-archive/base:1"),
    ],
)
def test_a_base_in_a_registry(text: str, full: str) -> None:
    reference = Reference.parse_base(text)
    assert (str(reference), reference.layout) == (full, "")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("oci:", "has no path"),
        ("oci-archive::1", "has no path"),
        ("oci:/a:b c", "'b c'"),
        ("oci:/a::b", "not the name of an image"),
    ],
)
def test_a_base_that_names_nothing(text: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        Reference.parse_base(text)
