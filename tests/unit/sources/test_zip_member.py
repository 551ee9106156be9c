from __future__ import annotations

import os
import random
import stat
from typing import TYPE_CHECKING

import pytest

from packager.errors import ArtifactError
from packager.image.context import write_context
from packager.image.layers.blob import plan_blobs
from packager.image.planner import make_plan
from packager.logs.progress import SilentReporter
from packager.sources.artifact import LEFT_PACKED, ArtifactLimits, open_artifact
from tests.unit.archives import Member, link, wine, write_zip
from tests.unit.builders import prepared, request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from packager.image.plan import ImagePlan
    from packager.sources.artifact import Artifact

LIMITS = ArtifactLimits(max_bytes=100_000_000, max_entries=50, max_ratio=10_000)
NOISE = random.Random(2).randbytes(3_000_000)  # noqa: S311  (test data)
WEIGHTS = NOISE + bytes(2_500_000) + NOISE[:100]


def opened(path: Path, workspace: Path, *members: Member, prefix: str = "", lazy: bool = True) -> Artifact:
    source = write_zip(path, [*wine(prefix=prefix), *members])
    return open_artifact(source, workspace, limits=LIMITS, reporter=SilentReporter(), lazy=lazy)


def weights(name: str = "model/weights.bin", **changes: object) -> Member:
    return Member(name=name, data=WEIGHTS, **changes)  # type: ignore[arg-type]


def plan_of(artifact: Artifact, work: Path) -> ImagePlan:
    (work / "environment").mkdir(exist_ok=True)
    return make_plan(request(), prepared(work, model=artifact.root, sizes=artifact.sizes, packed=artifact.packed))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("prefix", ["", "wine/"])
def test_a_large_file_stays_in_the_zip_until_it_is_read(tmp_path: Path, prefix: str, *, deflate: bool) -> None:
    large = weights(f"{prefix}model/weights.bin", deflate=deflate, mode=stat.S_IFREG | 0o755)
    artifact = opened(tmp_path / "m.zip", tmp_path, large, link(f"{prefix}model/again", "weights.bin"), prefix=prefix)
    assert not (artifact.root / "model/weights.bin").exists()
    assert (artifact.root / "model/entry.py").is_file()
    assert artifact.sizes["model/weights.bin"] == len(WEIGHTS)
    (member,) = artifact.packed.values()
    assert member.executable
    chunks = list(member.read())
    assert b"".join(chunks) == WEIGHTS == b"".join(member.read())
    assert max(map(len, chunks)) <= 1 << 20


def test_the_context_and_the_layers_do_not_tell_where_a_file_was(tmp_path: Path) -> None:
    def blobs(work: Path, *, lazy: bool) -> list[str]:
        work.mkdir()
        plan = plan_of(opened(work / "m.zip", work, weights(deflate=True), lazy=lazy), work)
        write_context(plan, work / "context", ours=work)
        written = work / "context/2-model/model/weights.bin"
        assert written.read_bytes() == WEIGHTS
        assert stat.S_IMODE(written.stat().st_mode) == 0o644
        assert written.stat().st_mtime == 315532800
        made = plan_blobs(plan)
        return [blob.info.digest for blob in made if list(blob.stream()) and blob.info]

    lazily, at_once = blobs(tmp_path / "a", lazy=True), blobs(tmp_path / "b", lazy=False)
    assert lazily == at_once
    assert len(lazily) == 3


KEPT_UNPACKED: dict[str, list[Member]] = {
    "small": [Member(name="a.bin", data=bytes(LEFT_PACKED - 1))],
    "wheel": [weights("libs/x-1.0-py3-none-any.whl")],
    "source archive": [weights("libs/x-1.0.tar.gz")],
    "requirements": [weights("requirements.txt")],
    "module": [weights("model/fast.cpython-311-x86_64-linux-gnu.so")],
    "project": [Member(name="lib/pyproject.toml"), weights("lib/src/data.bin")],
    "link to a wheel": [weights("blobs/1234"), link("libs/x-1.0-py3-none-any.whl", "../blobs/1234")],
}


@pytest.mark.parametrize("members", KEPT_UNPACKED.values(), ids=KEPT_UNPACKED)
def test_what_an_installation_may_read_is_unpacked(members: list[Member], tmp_path: Path) -> None:
    artifact = opened(tmp_path / "m.zip", tmp_path, *members)
    assert artifact.packed == {}
    assert all((artifact.root / str(member.name)).exists() for member in members)


LYING: dict[str, tuple[str, Member]] = {
    "crc, stored": ("CRC-32", weights(claimed_crc=1)),
    "crc, deflated": ("CRC-32", weights(deflate=True, claimed_crc=1)),
    "more than it says": ("more than the 5,000,000", weights(deflate=True, claimed_size=5_000_000)),
    "less than it says": ("less than the 6,000,000", weights(deflate=True, claimed_size=6_000_000)),
    "no deflate stream": ("damaged", weights(claimed_method=8)),
}


@pytest.mark.parametrize(("says", "member"), LYING.values(), ids=LYING)
@pytest.mark.parametrize("use", ["context", "layer"])
def test_a_member_that_is_not_what_the_zip_says_is_refused_when_it_is_read(
    says: str, member: Member, use: str, tmp_path: Path
) -> None:
    artifact = opened(tmp_path / "m.zip", tmp_path, member)
    plan = plan_of(artifact, tmp_path)
    uses: dict[str, Callable[[], object]] = {
        "context": lambda: write_context(plan, tmp_path / "context", ours=tmp_path),
        "layer": lambda: [list(blob.stream()) for blob in plan_blobs(plan, "gzip")],
    }
    with pytest.raises(ArtifactError, match=r"model/weights\.bin.*" + says) as caught:
        uses[use]()
    assert caught.value.exit_code == 10
    assert caught.value.hint


def test_checks_that_need_no_bytes_are_made_at_once(tmp_path: Path) -> None:
    for number, bad in enumerate([weights("../out.bin"), weights("model/ENTRY.py"), weights(flags=1)]):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(ArtifactError):
            opened(tmp_path / "m.zip", tmp_path / str(number), bad)


def test_an_archive_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    artifact = opened(tmp_path / "m.zip", tmp_path, weights())
    (member,) = artifact.packed.values()
    os.truncate(tmp_path / "m.zip", member.offset + 1000)
    with pytest.raises(ArtifactError, match="it ends too early"):
        list(member.read())
    (tmp_path / "m.zip").write_bytes(b"x" * 6_000_000)
    with pytest.raises(ArtifactError, match="does not begin where"):
        list(member.read())
    (tmp_path / "m.zip").unlink()
    with pytest.raises(ArtifactError, match="No such file"):
        list(member.read())
