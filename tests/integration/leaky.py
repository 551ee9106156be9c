"""The whole program with one leak in it, to see that the tests find it: LEAK=NAME python leaky.py WORDS..."""

from __future__ import annotations

import base64
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager import launcher, pipeline
from packager.image import planner
from packager.result import PackagingResult
from packager.system.process import run_command

if TYPE_CHECKING:
    from packager.image.plan import ImagePlan

SECRET = os.environ["PACKAGER_CONDA_CREDENTIALS"].partition("=")[2]
LEAK, SEEN = os.environ.pop("LEAK"), Path(os.environ.pop("SEEN"))
UNTIL_SEEN = 'until [ -e "$SEEN" ]; do sleep 0.05; done'
PATIENCE = 60
_make_plan, _to_dict = planner.make_plan, PackagingResult.to_dict


def wait_until_seen() -> None:
    until = time.monotonic() + PATIENCE
    while not SEEN.exists() and time.monotonic() < until:
        time.sleep(0.02)


def leak(work: Path) -> None:
    """Leak it in the middle of the work; what comes and goes stays until the test has seen it."""
    environ = {"PATH": os.environ["PATH"], "SEEN": str(SEEN)}
    encoded = base64.b64encode(f"x:{SECRET}".encode()).decode()
    match LEAK:
        case "stderr":
            sys.stderr.write(f"asking with {SECRET}\n")
        case "base64 on stderr":
            sys.stderr.write(f"Authorization: Basic {encoded}\n")
        case "argv":
            run_command(["sh", "-c", UNTIL_SEEN, f"--password={SECRET}"], env=environ, seconds=PATIENCE)
        case "environment":
            run_command(["sh", "-c", UNTIL_SEEN], env={**environ, "PASSWORD": encoded}, seconds=PATIENCE)
        case "cache":
            Path(os.environ["PACKAGER_CACHE_DIR"], "leaked").write_text(encoded)
        case "work file":
            (work / "leaked").write_text(SECRET)
            wait_until_seen()
            (work / "leaked").unlink()
        case "mode":
            folder = work / "auth-leaked"
            folder.mkdir(mode=0o700)
            (folder / "config.json").write_text(SECRET)
            (folder / "config.json").chmod(0o644)
            wait_until_seen()
        case "home":
            Path(os.environ["HOME"], ".leaked").write_text(SECRET)


def make_plan(request: Any, prepared: Any) -> ImagePlan:
    (work,) = Path(os.environ["PACKAGER_WORK_DIR"]).glob("packager-*")
    leak(work)
    plan = _make_plan(request, prepared)
    if LEAK == "label":
        return replace(plan, config=replace(plan.config, labels=(*plan.config.labels, ("leaked", SECRET))))
    if LEAK == "layer":
        entrypoint = prepared.model / "odahuflow_model/entrypoint.py"
        entrypoint.write_text(f"{entrypoint.read_text()}\nTOKEN = {SECRET!r}\n")
    return plan


def to_dict(self: PackagingResult) -> dict[str, str]:
    return {**_to_dict(self), "leaked": SECRET} if LEAK == "result" else _to_dict(self)


setattr(pipeline, "make_plan", make_plan)  # noqa: B010  (it is that module's only by import)
setattr(PackagingResult, "to_dict", to_dict)  # noqa: B010
launcher.main()
