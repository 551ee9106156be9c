"""Write what is generated below a folder of manifests: of the chart, for Argo and Tekton, and the plain manifests.

python local/manifests.py [FOLDER]      default: manifests, where the chart's hand-written part lies
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from packager import __version__
from packager.kube.chart import chart_files, workflow_files

PROJECT = Path(__file__).parents[1]
CHART = "odahu-flow-packagers"
HEADER = f"""\
# Rendered from the chart {CHART} by `make manifests`: for clusters without Helm.
# Put your registry in the place of REGISTRY, and the group that may package in the place of USERS.
"""
API_HEADER = f"""\
# Rendered from the chart {CHART} by `make manifests`: the API service, beside packagers.yaml.
# Replace REGISTRY with your registry, and create the Secret packager-api-tokens (docs/how-to/api-service.md).
"""
IMAGE = f"image=REGISTRY/packager:{__version__}"
PLACEHOLDERS = (IMAGE, "rbac.users[0].kind=Group", "rbac.users[0].name=USERS")
API_PLACEHOLDERS = (
    IMAGE,
    f"api.image=REGISTRY/packager-api:{__version__}",
    "api.enabled=true",
    "api.tokensSecret.name=packager-api-tokens",
)


def render_plain(chart: Path, header: str, placeholders: tuple[str, ...], templates: tuple[str, ...] = ()) -> str:
    """Render the chart, or some of its templates, with placeholders."""
    helm = subprocess.run([PROJECT / "local/go_program.sh", "helm"], check=True, stdout=subprocess.PIPE, text=True)
    words = [helm.stdout.strip(), "template", "packagers", chart, "--namespace", "packager"]
    values = [word for value in placeholders for word in ("--set", value)]
    values += [word for name in templates for word in ("--show-only", f"templates/{name}.yaml")]
    with tempfile.TemporaryDirectory() as home:
        environ = {**os.environ, "HELM_CACHE_HOME": home, "HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
        done = subprocess.run([*words, *values], check=True, stdout=subprocess.PIPE, text=True, env=environ)
    # Helm names itself as the manager, and its release: neither is true of these.
    own = [
        line.replace("managed-by: Helm", "managed-by: kubectl")
        for line in done.stdout.splitlines()
        if not line.startswith("# Source:")
        and "helm.sh/chart:" not in line
        and "app.kubernetes.io/instance:" not in line
    ]
    return header + "\n".join(own) + "\n"


def main() -> None:
    """Write them all."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "manifests"
    files = {f"{CHART}/{name}": text for name, text in chart_files().items()} | workflow_files()
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "packagers.yaml").write_text(render_plain(folder / CHART, HEADER, PLACEHOLDERS))
    api = render_plain(folder / CHART, API_HEADER, API_PLACEHOLDERS, ("api", "api-access"))
    (folder / "api.yaml").write_text(api)


if __name__ == "__main__":
    main()
