from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from packager.engines import BuiltImage
from packager.errors import PackagerError, RegistryAuthError, UsageError
from packager.models.reference import Destination, Reference
from packager.result import TERMINATION_LOG_BYTES, Outputs, PackagingResult

DIGEST = "sha256:" + "1" * 64
REFERENCE = Reference.parse("gcr.io/project/wine:1")
RESULT = PackagingResult.of(BuiltImage(destination=Destination(reference=REFERENCE), digest=DIGEST), "passed")


def outputs(folder: Path) -> Outputs:
    log = folder / "log"
    log.touch()
    return Outputs(result_file=folder / "result.json", results_dir=folder / "results", termination_log=log)


def test_the_three_files_agree(tmp_path: Path) -> None:
    places = outputs(tmp_path)
    places.prepare()
    places.write(RESULT)
    expected = {
        "image": "gcr.io/project/wine:1",
        "imageDigest": f"gcr.io/project/wine@{DIGEST}",
        "modelCheck": "passed",
    }
    assert json.loads((tmp_path / "result.json").read_text()) == expected
    assert json.loads((tmp_path / "log").read_text()) == expected
    assert {path.name: path.read_text() for path in (tmp_path / "results").iterdir()} == expected
    assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == 0o644
    assert not list(tmp_path.glob(".*"))


def test_a_local_output_is_named_beside_the_image() -> None:
    destination = Destination(reference=REFERENCE, transport="oci-archive", path=Path("/tmp/wine.tar"))  # noqa: S108
    result = PackagingResult.of(BuiltImage(destination=destination, digest=DIGEST), "passed")
    assert result.to_dict()["output"] == "oci-archive:/tmp/wine.tar"


def test_what_an_earlier_run_left_is_gone_before_the_work_starts(tmp_path: Path) -> None:
    places = outputs(tmp_path)
    places.prepare()
    places.write(RESULT)
    places.prepare()
    assert not (tmp_path / "result.json").exists()
    assert not list((tmp_path / "results").iterdir())


def test_a_failure_goes_to_the_termination_log_only(tmp_path: Path) -> None:
    places = outputs(tmp_path)
    places.prepare()
    places.write_error(RegistryAuthError("refused", hint="log in"))
    body = json.loads((tmp_path / "log").read_text())
    assert body == {"error": {"code": "registry-auth", "message": "refused", "hint": "log in"}}
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(("message", "hint"), [("x" * 9000, "h"), ('é\n"' * 5000, "h" * 500), ("short", "h" * 9000)])
def test_a_long_error_is_cut_to_what_the_kubelet_reads(tmp_path: Path, message: str, hint: str) -> None:
    places = outputs(tmp_path)
    places.write_error(PackagerError(message, hint=hint))
    written = (tmp_path / "log").read_bytes()
    assert len(written) <= TERMINATION_LOG_BYTES
    assert message.startswith(json.loads(written)["error"]["message"].rstrip("…"))


def test_results_are_whole_or_not_there(tmp_path: Path) -> None:
    places = Outputs(
        result_file=tmp_path / "result.json", results_dir=tmp_path / "results", termination_log=Path("/dev/full")
    )
    places.prepare()
    with pytest.raises(PackagerError, match=f"wine@{DIGEST} was delivered, but its results can't be written"):
        places.write(RESULT)
    assert not (tmp_path / "result.json").exists()
    assert not list((tmp_path / "results").iterdir())


def test_a_place_that_can_not_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write results to .*nowhere") as caught:
        Outputs(result_file=tmp_path / "nowhere/result.json").prepare()
    assert caught.value.exit_code == 2
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write results"):
        Outputs(results_dir=tmp_path / "file").prepare()
