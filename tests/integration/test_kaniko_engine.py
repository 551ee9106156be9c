"""The Kaniko engine's handling of its process, with a script in the executor's place.

The script is no Kaniko: it does what Kaniko's source and docs say that it does (a digest file before the push, a RUN
step in a process group of its own, no signal handling). `test_kaniko_job.py` is for the real one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from packager.engines.kaniko import KanikoEngine
from packager.errors import RegistryUnreachableError, ToolMissingError
from packager.image.plan import BaseImage, ImageConfig, ImagePlan
from packager.models.reference import Destination, Reference
from packager.registry.access import RegistryAccess
from packager.settings import Settings
from packager.system.process import run_command
from tests.integration.test_process import wait_for, with_argument

DIGEST = "sha256:" + "d" * 64
PLAN = ImagePlan(base=BaseImage(reference=Reference.parse("r.io/base:1")), steps=(), config=ImageConfig())
TO = Destination(reference=Reference.parse("r.io/models/wine:1"))
HEAD = f"""#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = --digest-file ] && digest="$2"; shift; done
printf %s '{DIGEST}' > "$digest"
env > "$(dirname "$0")/environment"
"""
# As Kaniko's RUN: a child in a process group of its own, which survives the executor.
RUN_STEP = """
echo '{"level":"info","msg":"Running: [sleep]"}'
setsid sh -c 'setsid sleep MARK & exec sleep MARK' &
wait
"""


def make(folder: Path, script: str, **settings: object) -> tuple[KanikoEngine, Path, RegistryAccess]:
    executor = folder / "executor"
    executor.write_text(HEAD + script)
    executor.chmod(0o755)
    (folder / "work" / "context").mkdir(parents=True)
    made = Settings.model_validate(
        {"kaniko_executor": executor, "kaniko_force": True, "cache_dir": folder / "cache", **settings}
    )
    environ = {"PATH": os.environ["PATH"], "DOCKER_AUTH_CONFIG": "s3cret"}
    engine = KanikoEngine(made, partial(run_command, grace=1), environ)
    return engine, folder / "work" / "context", RegistryAccess()


def test_the_digest_of_a_run_that_ended_well(tmp_path: Path) -> None:
    engine, context, access = make(tmp_path, "exit 0\n")
    assert engine.build(PLAN, context, TO, access).digest == DIGEST
    environment = (tmp_path / "environment").read_text()
    assert f"DOCKER_CONFIG={tmp_path}/auth\n" in environment
    assert "USER=" in environment
    assert "s3cret" not in environment
    assert os.listdir(context.parent) == ["context"]  # noqa: PTH208  (names)


def test_a_push_that_failed(tmp_path: Path) -> None:
    verdict = "error pushing image: failed to push to destination r.io/models/wine:1: dial tcp: connection refused"
    engine, context, access = make(tmp_path, f"echo '{verdict}' >&2; exit 1\n")
    with pytest.raises(RegistryUnreachableError):
        engine.build(PLAN, context, TO, access)


def test_an_executor_that_is_not_there(tmp_path: Path) -> None:
    engine, context, access = make(tmp_path, "", kaniko_executor=tmp_path / "nowhere")
    with pytest.raises(ToolMissingError):
        engine.build(PLAN, context, TO, access)


PROGRAM = """
    import os
    import sys
    from pathlib import Path
    from packager.errors import Interrupted
    from packager.launcher import supervise
    from packager.system.signals import raise_on_stop
    from tests.integration.test_kaniko_engine import PLAN, TO, make, RUN_STEP

    def work(_folder):
        raise_on_stop()
        engine, context, access = make(Path(sys.argv[1]), RUN_STEP.replace("MARK", os.environ["MARK"]))
        try:
            engine.build(PLAN, context, TO, access)
        except Interrupted as error:
            os._exit(error.as_error().exit_code)

    sys.exit(supervise(work, []))
"""
AS_PROCESS_1 = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"]


@pytest.mark.parametrize(
    "prefix", [[], pytest.param(AS_PROCESS_1, marks=pytest.mark.needs("root", "unshare"))], ids=["child", "process 1"]
)
def test_sigterm_during_a_run_step_ends_everything(tmp_path: Path, prefix: list[str]) -> None:
    mark = f"98765.{2 + len(prefix)}"
    argv = [*prefix, sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    root = Path(__file__).parents[2]
    environ = {**os.environ, "MARK": mark}  # not an argument: it's by its arguments that the RUN step is found
    with subprocess.Popen(
        argv, cwd=root, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: len(with_argument(mark)) == 2)
        packager = process.pid
        if prefix:
            children = Path(f"/proc/{packager}/task/{packager}/children").read_text().split()
            packager = int(children[0])
        started = time.monotonic()
        os.kill(packager, signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert time.monotonic() - started < 60
    assert with_argument(mark) == []
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["context"]
