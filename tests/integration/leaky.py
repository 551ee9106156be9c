"""The whole program with one leak in it, to see that the tests find it: LEAK=NAME python leaky.py WORDS..."""

from __future__ import annotations

import base64
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager import pipeline, planner, start
from packager.process import run_command
from packager.result import PackagingResult

if TYPE_CHECKING:
    from packager.plan import ImagePlan

SECRET = os.environ["PACKAGER_CONDA_CREDENTIALS"].partition("=")[2]
LEAK = os.environ.pop("LEAK")
_make_plan, _to_dict = planner.make_plan, PackagingResult.to_dict


def leak(work: Path) -> None:
    """Leak it in the middle of the work."""
    encoded = base64.b64encode(f"x:{SECRET}".encode()).decode()
    match LEAK:
        case "stderr":
            sys.stderr.write(f"asking with {SECRET}\n")
        case "base64 on stderr":
            sys.stderr.write(f"Authorization: Basic {encoded}\n")
        case "argv":
            run_command(["sh", "-c", "sleep 0.5; exit", f"--password={SECRET}"], env={"PATH": os.environ["PATH"]})
        case "environment":
            run_command(["sleep", "0.5"], env={"PATH": os.environ["PATH"], "PASSWORD": encoded})
        case "cache":
            Path(os.environ["PACKAGER_CACHE_DIR"], "leaked").write_text(encoded)
        case "work file":
            (work / "leaked").write_text(SECRET)
            time.sleep(0.3)
            (work / "leaked").unlink()
        case "mode":
            (auth,) = work.glob("auth-*/config.json")
            auth.chmod(0o644)
            time.sleep(0.3)
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
start.main()
