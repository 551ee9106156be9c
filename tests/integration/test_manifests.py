"""The chart by Helm itself, and the plain manifests by kubectl itself."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from packager.api.config import ApiSettings
from packager.api.identity.tokens import read_tokens
from packager.api.store.encryption import read_key_file
from packager.kube.entities import integration_of
from packager.kube.job import security
from packager.kube.job_settings import JobSettings
from packager.models.integrations import INTEGRATION_TYPES
from packager.models.integrations.schema import integration_document
from packager.models.packaging import PackagingIntegration
from tests.integration.api_server import ApiServer
from tests.integration.packaging import ROOT

MANIFESTS = ROOT / "manifests"
CHART = MANIFESTS / "odahu-flow-packagers"
OLDEST, *_, NEWEST = all_versions()
API_POSTGRES: dict[str, Any] = {
    "enabled": True,
    "image": "registry.example/packager-api:1",
    "replicas": 2,
    "databaseUrlSecret": {"name": "packager-db"},
    "keySecret": {"name": "packager-key", "key": "fernet"},
    "oidc": {"issuer": "https://id.example", "audience": "packager", "writeClaim": "groups=packagers"},
    "ingress": {"enabled": True, "className": "nginx", "host": "packager.example", "tlsSecret": "packager-tls"},
    "env": {"PACKAGER_API_OUTPUT_CONNECTION": "models"},
}
API_SQLITE: dict[str, Any] = {"enabled": True, "tokensSecret": {"name": "packager-tokens"}}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": {
        "image": "registry.example/packager:1",
        "rest": {"image": "registry.example/rest:1", "targets": {"docker-push": "registry", "docker-pull": "bases"}},
        "jobs": {
            "engine": "oci",
            "imagePullSecrets": ["pull"],
            "tolerations": [{"key": "build", "operator": "Exists"}],
            "outputConnection": "models",
            "env": {"HTTPS_PROXY": "http://proxy:3128"},
            "resources": {"limits": {"memory": "8Gi"}},
        },
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/packager"}},
        "rbac": {
            "users": [{"kind": "Group", "name": "data-scientists"}],
            "admins": [{"kind": "ServiceAccount", "name": "ci", "namespace": "ci"}],
        },
        "apiUrl": "https://odahu.example",
        "apiTokenSecret": "odahu-token",
        "quota": {"count/jobs.batch": "200", "limits.memory": "64Gi"},
    },
    "little": {
        "cli": {"enabled": False},
        "serviceAccount": {"create": False},
        "rbac": {"create": False},
        "networkPolicy": {"enabled": False},
    },
    "api on SQLite": {"api": API_SQLITE},
    "api on PostgreSQL": {"api": API_POSTGRES},
}


def helm(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    from tests.conftest import go_program  # noqa: PLC0415  (pytest has loaded it under another name)

    return subprocess.run([str(go_program("helm")), *words], check=check, capture_output=True, text=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "helm"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


def values_file(folder: Path, values: dict[str, Any]) -> str:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return str(file)


def template(folder: Path, values: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    done = helm("template", "packagers", str(CHART), "-n", "ml", "-f", values_file(folder, values))
    bodies = [body for body in yaml.safe_load_all(done.stdout) if body]
    return {(body["kind"], body["metadata"]["name"]): body for body in bodies}


@pytest.mark.needs("helm")
@pytest.mark.parametrize("name", VALUES)
def test_helm_lints_the_chart(tmp_path: Path, name: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "-f", values_file(tmp_path, VALUES[name])).stdout


@pytest.mark.needs("helm")
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", VALUES)
def test_what_helm_renders_is_valid_in_every_kubernetes(tmp_path: Path, name: str, version: str) -> None:
    bodies = template(tmp_path, VALUES[name])
    counts = {"defaults": 7, "everything": 11, "little": 2, "api on SQLite": 14, "api on PostgreSQL": 14}
    assert len(bodies) == counts[name]
    for body in bodies.values():
        kubernetes_validate.validate(body, version, strict=True)
        assert body["metadata"]["namespace"] == "ml"


@pytest.mark.needs("helm")
def test_the_charts_entities_are_the_codes_with_its_values(tmp_path: Path) -> None:
    bodies = template(tmp_path, VALUES["everything"])
    rest = integration_of(bodies["ConfigMap", "integration-docker-rest"])
    expected = integration_document(INTEGRATION_TYPES["docker-rest"], "registry.example/rest:1")
    for target, connection in zip(expected["spec"]["schema"]["targets"], ("registry", "bases"), strict=True):
        target["default"] = connection
    assert rest == PackagingIntegration.model_validate(expected)
    cli = integration_of(bodies["ConfigMap", "integration-docker-cli"])
    assert cli.spec.default_image == "registry.example/packager:1"
    settings = JobSettings.from_yaml(bodies["ConfigMap", "packager-jobs"]["data"]["settings.yaml"], "the chart's")
    assert (settings.engine, settings.image) == ("oci", "registry.example/packager:1")
    assert settings.service_account_name == "packager-job"
    assert settings.resources.limits == {"cpu": "2", "memory": "8Gi"}
    account = bodies["ServiceAccount", "packager-job"]
    assert account["metadata"]["annotations"] == VALUES["everything"]["serviceAccount"]["annotations"]
    assert account["automountServiceAccountToken"] is False


@pytest.mark.needs("helm")
def test_the_default_settings_are_the_codes(tmp_path: Path) -> None:
    text = template(tmp_path, {})["ConfigMap", "packager-jobs"]["data"]["settings.yaml"]
    assert JobSettings.from_yaml(text, "the chart's") == JobSettings(service_account_name="packager-job")


@pytest.mark.needs("helm")
@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"jobs": {"engine": "docker"}}, "/jobs/engine"),
        ({"jobs": {"image": "x"}}, "image"),
        ({"ingress": True}, "ingress"),
        ({"rest": {"targets": {"docker-pusch": "x"}}}, "docker-pusch"),
        ({"quota": {"pods": 3}}, "/quota/pods"),
        ({"apiUrl": "odahu.example"}, "/apiUrl"),
        ({"rbac": {"users": [{"name": "ann"}]}}, "/rbac/users/0"),
        ({"rbac": {"admins": [{"kind": "group", "name": "ann"}]}}, "/rbac/admins/0/kind"),
        ({"networkPolicy": {"ports": []}}, "/networkPolicy/ports"),  # which Kubernetes takes for every port
        ({"networkPolicy": {"ports": [65536]}}, "/networkPolicy/ports/0"),
        ({"networkPolicy": {"blocked": ["169.254.169.254"]}}, "/networkPolicy/blocked/0"),
        ({"jobs": {"resources": {"limits": {"memory": "4gb"}}}}, "/jobs/resources/limits/memory"),
        ({"jobs": {"workSize": "20K"}}, "/jobs/workSize"),
        ({"api": {"enabled": True}}, "api.tokensSecret.name"),
        ({"api": {**API_SQLITE, "replicas": 2}}, "api.replicas: more than one needs PostgreSQL"),
        ({"api": {**API_POSTGRES, "keySecret": {"name": ""}}}, "api.keySecret.name: with PostgreSQL"),
        ({"api": {"enabled": True, "oidc": {"issuer": "https://id.example"}}}, "give issuer and audience"),
        ({"api": {**API_SQLITE, "oidc": {"writeClaim": "a=b"}}}, "api.oidc.writeClaim"),
        ({"api": {**API_SQLITE, "ingress": {"enabled": True}}}, "api.ingress.host"),
        ({"api": {**API_SQLITE, "ingress": {"host": "http://a"}}}, "/api/ingress/host"),
        ({"api": {**API_SQLITE, "env": {"PACKAGER_API_LISTEN": "0.0.0.0:9"}}}, "'PACKAGER_API_LISTEN'"),
        ({"api": {**API_SQLITE, "oidc": {"issuer": "http://id.example"}}}, "/api/oidc/issuer"),
        ({"api": {**API_SQLITE, "replicas": 0}}, "/api/replicas"),
    ],
)
def test_helm_refuses_values_that_are_wrong(tmp_path: Path, values: dict[str, Any], told: str) -> None:
    done = helm("template", "packagers", str(CHART), "-f", values_file(tmp_path, values), check=False)
    assert done.returncode != 0
    assert told in done.stderr


def api_container(bodies: dict[tuple[str, str], dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    pod = bodies["Deployment", "packager-api"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def api_settings(pod: dict[str, Any], container: dict[str, Any], folder: Path, secrets: dict[str, str]) -> ApiSettings:
    """What the service reads of its pod's environment, with Secrets in `folder`."""
    environ = {
        each["name"]: each["value"] if "value" in each else secrets[each["valueFrom"]["secretKeyRef"]["name"]]
        for each in container["env"]
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    for volume in pod["volumes"]:
        if "secret" in volume:
            (item,) = volume["secret"]["items"]
            file = folder / item["path"]
            file.write_text(secrets[volume["secret"]["secretName"]])
            file.chmod(volume["secret"]["defaultMode"])
            variable = {"key": "PACKAGER_API_KEY_FILE", "tokens": "PACKAGER_API_TOKENS_FILE"}[volume["name"]]
            assert environ[variable] == f"{mounts[volume['name']]}/{item['path']}"
            environ[variable] = str(file)
    return ApiSettings.from_env(environ)


@pytest.mark.needs("helm")
@pytest.mark.parametrize("name", ["api on SQLite", "api on PostgreSQL"])
def test_the_service_has_the_least_rights(tmp_path: Path, name: str) -> None:
    pod, container = api_container(template(tmp_path, VALUES[name]))
    least = security("oci")
    assert pod["securityContext"] == least.pod
    assert container["securityContext"] == least.container
    assert {volume for each in pod["volumes"] for volume in each if volume != "name"} <= {
        "emptyDir",
        "persistentVolumeClaim",
        "secret",
    }  # of those that the level "restricted" allows
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")] == [
        "/health",
        "/health",
        "/ready",
    ]


@pytest.mark.needs("helm")
def test_the_service_reads_its_environment_with_sqlite(tmp_path: Path) -> None:
    bodies = template(tmp_path, VALUES["api on SQLite"])
    digest = "0" * 64
    settings = api_settings(*api_container(bodies), tmp_path, {"packager-tokens": f"ann read-write {digest}\n"})
    assert (settings.listen, settings.executor, settings.database_url) == ("0.0.0.0:8080", "kubernetes", None)
    assert settings.tokens_file is not None
    assert list(read_tokens(settings.tokens_file)) == [digest]
    deployment = bodies["Deployment", "packager-api"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    claim = bodies["PersistentVolumeClaim", "packager-api"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert ("Ingress", "packager-api") not in bodies


@pytest.mark.needs("helm")
def test_the_service_reads_its_environment_with_postgresql(tmp_path: Path) -> None:
    bodies = template(tmp_path, VALUES["api on PostgreSQL"])
    url, key = "postgresql://packager:secret@db.example/packager", base64.urlsafe_b64encode(bytes(32)).decode()
    pod, container = api_container(bodies)
    settings = api_settings(pod, container, tmp_path, {"packager-db": url, "packager-key": f"{key}\n"})
    assert settings.database_url is not None
    assert settings.database_url.get_secret_value() == url
    assert settings.key_file is not None
    assert read_key_file(settings.key_file).decrypt(read_key_file(settings.key_file).encrypt({"a": "b"})) == {"a": "b"}
    assert (settings.oidc_issuer, settings.oidc_audience) == ("https://id.example", "packager")
    assert (settings.oidc_write_claim, settings.output_connection) == ("groups=packagers", "models")
    assert ("PersistentVolumeClaim", "packager-api") not in bodies
    assert "emptyDir" in next(volume for volume in pod["volumes"] if volume["name"] == "data")
    assert url not in yaml.safe_dump_all(bodies.values())


@pytest.mark.needs("helm")
def test_ingress_service_and_pods_of_the_service_fit_together(tmp_path: Path) -> None:
    bodies = template(tmp_path, VALUES["api on PostgreSQL"])
    pods = bodies["Deployment", "packager-api"]["spec"]["template"]
    (port,) = pods["spec"]["containers"][0]["ports"]
    service = bodies["Service", "packager-api"]
    for selector in (
        service["spec"]["selector"],
        bodies["Deployment", "packager-api"]["spec"]["selector"]["matchLabels"],
        bodies["NetworkPolicy", "packager-api"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= pods["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert service["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    (ingress,) = bodies["NetworkPolicy", "packager-api"]["spec"]["ingress"]
    assert ingress["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]
    spec = bodies["Ingress", "packager-api"]["spec"]
    assert (spec["ingressClassName"], spec["tls"][0]["hosts"]) == ("nginx", ["packager.example"])
    backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": service["metadata"]["name"], "port": {"name": service["spec"]["ports"][0]["name"]}}
    account = bodies["RoleBinding", "packager-api"]["subjects"][0]["name"]
    assert account == pods["spec"]["serviceAccountName"] == bodies["ServiceAccount", "packager-api"]["metadata"]["name"]


@pytest.mark.needs("helm")
def test_a_service_account_is_the_releases_where_it_names_no_namespace(tmp_path: Path) -> None:
    subjects = [{"kind": "ServiceAccount", "name": "ci"}, {"kind": "ServiceAccount", "name": "ci", "namespace": "ops"}]
    subjects.append({"kind": "User", "name": "ann"})
    bindings = template(tmp_path, {"rbac": {"users": subjects}})["RoleBinding", "packager-user"]
    assert bindings["subjects"] == [
        {"kind": "ServiceAccount", "name": "ci", "namespace": "ml"},
        {"kind": "ServiceAccount", "name": "ci", "namespace": "ops"},
        {"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"},
    ]


@pytest.mark.needs("helm")
def test_the_registration_runs_where_jobs_do_and_only_with_something_to_register(tmp_path: Path) -> None:
    jobs = {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "build", "operator": "Exists"}]}
    values: dict[str, Any] = {"apiUrl": "https://odahu.example", "jobs": jobs}
    pod = template(tmp_path, values)["Job", "packager-registration"]["spec"]["template"]["spec"]
    assert {name: pod[name] for name in jobs} == jobs
    off = {"enabled": False}
    assert ("Job", "packager-registration") not in template(tmp_path, {**values, "rest": off, "cli": off})


@pytest.mark.needs("helm")
def test_the_plain_manifests_have_not_drifted(tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "manifests")
    subprocess.run([sys.executable, "local/manifests.py", str(tmp_path / "manifests")], cwd=ROOT, check=True)
    compared = subprocess.run(
        ["diff", "-r", MANIFESTS, tmp_path / "manifests"], check=False, capture_output=True, text=True
    )
    assert compared.stdout == ""


def plain(name: str = "packagers.yaml") -> list[dict[str, Any]]:
    return [body for body in yaml.safe_load_all((MANIFESTS / name).read_text()) if body]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_plain_manifests_are_valid_in_every_kubernetes(version: str) -> None:
    for body in [*plain(), *plain("api.yaml"), *plain("namespace.yaml")]:
        kubernetes_validate.validate(body, version, strict=True)


def test_the_service_may_what_those_who_package_may() -> None:
    roles = {
        body["metadata"]["name"]: body["rules"] for body in [*plain(), *plain("api.yaml")] if body["kind"] == "Role"
    }
    assert roles["packager-api"] == roles["packager-user"]


@pytest.mark.needs("kubectl")
def test_kustomize_puts_them_into_any_namespace(tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "own", ignore=shutil.ignore_patterns("odahu-flow-packagers"))
    text = (tmp_path / "own/kustomization.yaml").read_text().replace("namespace: packager", "namespace: team")
    (tmp_path / "own/kustomization.yaml").write_text(text)
    done = subprocess.run(
        ["kubectl", "kustomize", tmp_path / "own"], check=True, capture_output=True, text=True, env=dict(os.environ)
    )
    bodies = list(yaml.safe_load_all(done.stdout))
    assert len(bodies) == len(plain()) + 1
    assert {body["metadata"].get("namespace", "team") for body in bodies} == {"team"}


@pytest.mark.needs("helm")
def test_the_registration_has_the_least_rights_and_reads_what_is_installed(tmp_path: Path) -> None:
    bodies = template(tmp_path, VALUES["everything"])
    pod = bodies["Job", "packager-registration"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    least = security("oci")
    assert pod["securityContext"] == {name: each for name, each in least.pod.items() if name != "fsGroupChangePolicy"}
    assert container["securityContext"] == least.container
    assert container["command"] == ["packager", "integration", "register"]
    projected = next(volume["projected"] for volume in pod["volumes"] if volume["name"] == "integrations")
    for source in projected["sources"]:
        config_map = bodies["ConfigMap", source["configMap"]["name"]]
        assert source["configMap"]["items"][0]["key"] in config_map["data"]
    assert len(projected["sources"]) == 2
    assert ("Job", "packager-registration") not in template(tmp_path, {})


@pytest.mark.needs("kubectl")
def test_kubectl_reads_the_plain_manifests_with_their_placeholders_filled(tmp_path: Path) -> None:
    text = (MANIFESTS / "packagers.yaml").read_text()
    assert text.count("REGISTRY") > 1
    filled = tmp_path / "packagers.yaml"
    filled.write_text(text.replace("REGISTRY", "registry.example/ml").replace("USERS", "data-scientists"))
    with ApiServer() as server:
        config = server.kubeconfig(tmp_path / "kubeconfig", namespace="packager")
        words = ["kubectl", "--kubeconfig", str(config), "create", "--dry-run=client", "--validate=false", "-o", "yaml"]
        done = subprocess.run(
            [*words, "-f", str(MANIFESTS / "namespace.yaml"), "-f", str(filled)],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
    bodies = [each for document in yaml.safe_load_all(done.stdout) for each in document.get("items", [document])]
    expected = [yaml.safe_load((MANIFESTS / "namespace.yaml").read_text()), *yaml.safe_load_all(filled.read_text())]
    assert [body["kind"] for body in bodies] == [body["kind"] for body in expected if body]
    for body, original in zip(bodies, [each for each in expected if each], strict=True):
        assert {key: body[key] for key in original if key != "metadata"} == {
            key: each for key, each in original.items() if key != "metadata"
        }
    assert "REGISTRY" not in done.stdout
    assert "USERS" not in done.stdout
