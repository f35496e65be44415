"""The manifests for Kubernetes, rendered by kustomize and looked at without a cluster: those of the fullest variant, of
the least, and of two between them."""

import copy
import json
import os
import re
import shlex
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import clean_environment, install, make
from tests.manifests import (
    Manifest,
    configuration,
    environment_of,
    kustomize,
    manifests_of,
    name_of,
    of_kind,
    option,
    pods_of,
    problems,
)
from tests.test_docs import commands_of
from tests.variants import TEMPLATE, core_variants, render

OVERLAYS = ["development", "production"]
VARIANTS = {
    "fullest": core_variants()[0],
    "queued": core_variants()[-1] | {"queued_writes": True},
    "observed": core_variants()[-1] | {"observability": True},
    "least": core_variants()[-1],
}

type Rendered = dict[str, list[Manifest]]


@pytest.fixture(scope="module", autouse=True)
def _kustomize() -> None:
    """Skip without kustomize, or fail where CI promises it."""
    if kustomize() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI needs kustomize: install kubectl")
        pytest.skip("kubectl and kustomize are not there: the manifests for Kubernetes were not looked at")


@pytest.fixture(params=VARIANTS)
def named(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Projects for Kubernetes, whose slug is no name in DNS."""
    answers = {"project_slug": "shop_service", "deployment": "kubernetes", "resource": "purchase_order"}
    return {name: render(tmp_path_factory.mktemp(name), **variant, **answers) for name, variant in VARIANTS.items()}


@pytest.fixture
def deployed(named: str, projects: dict[str, Path]) -> Path:
    return projects[named]


@pytest.fixture(scope="module")
def manifests(projects: dict[str, Path]) -> dict[str, Rendered]:
    return {
        name: {overlay: manifests_of(project, overlay) for overlay in OVERLAYS} for name, project in projects.items()
    }


@pytest.fixture
def rendered(named: str, manifests: dict[str, Rendered]) -> Rendered:
    return manifests[named]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_fault_is_found(rendered: Rendered, overlay: str) -> None:
    assert problems(rendered[overlay]) == []


def test_what_is_there_is_what_was_chosen(rendered: Rendered, named: str) -> None:
    chosen = VARIANTS[named]
    for overlay, manifests in rendered.items():
        names = set(map(name_of, manifests))
        assert {"Deployment/api", "Job/migrate", "StatefulSet/pooler", "NetworkPolicy/default-deny"} <= names
        assert ("Deployment/worker" in names) is chosen["queued_writes"]
        assert ("PodMonitor/api" in names) is (chosen["observability"] and overlay == "production")
        assert ("HorizontalPodAutoscaler/api" in names) is (overlay == "production")
        assert {"PodDisruptionBudget/api", "PodDisruptionBudget/pooler"} <= names
        text = json.dumps(manifests).lower()
        for feature, words in {"caching": ("redis",), "queued_writes": ("rabbitmq", "celery", "keda")}.items():
            assert chosen[feature] or not [word for word in words if word in text], (overlay, feature)


def test_only_the_migration_has_the_password_of_the_owner(rendered: Rendered) -> None:
    for manifests in rendered.values():
        keys: dict[str, list[str]] = defaultdict(list)
        for name, pod in pods_of(manifests):
            for key in re.findall(r'"(?:key|subPath)": "(\w+_PASSWORD)"', json.dumps(pod)):
                keys[key].append(name)
        assert [name for name in keys["MIGRATION_PASSWORD"] if name != "StatefulSet/postgres"] == ["Job/migrate"]
        assert "Job/migrate" not in keys["DATABASE_PASSWORD"]


def test_what_the_migration_needs_is_applied_before_the_rest(rendered: Rendered) -> None:
    before = [one for one in rendered["production"] if "before-release" in one["metadata"].get("labels", {})]
    assert {one["kind"] for one in before} == {"Namespace", "ConfigMap", "NetworkPolicy", "Job"}
    only_it = before + [one for one in rendered["production"] if name_of(one) == "ConfigMap/pooler"]
    # Policies and settings that are for pods of the rest select and reach nothing yet.
    assert [problem for problem in problems(only_it) if problem.startswith("Job/migrate")] == []


def test_each_file_is_valid_yaml_before_and_after() -> None:
    for path in (TEMPLATE / "kubernetes").rglob("*.yaml"):
        assert list(yaml.safe_load_all(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("named", [name for name, variant in VARIANTS.items() if variant["observability"]])
def test_rules_are_made_anew_from_those_of_compose(deployed: Path, rendered: Rendered) -> None:
    rules = deployed / "observe/prometheus/rules"
    monitored = of_kind(rendered["production"], "PrometheusRule")
    # promtool looks at those of Compose: tests/test_observe.py.
    expected = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in rules.glob("*.yml")}
    assert {one["metadata"]["name"]: one["spec"] for one in monitored} == expected
    made = (deployed / "kubernetes/monitoring/rules.yaml").read_text(encoding="utf-8")
    make(deployed, "kubernetes-rules")
    assert (deployed / "kubernetes/monitoring/rules.yaml").read_text(encoding="utf-8") == made
    # What the rules ask for by its job is what is monitored.
    jobs = set(re.findall(r'job="(\w+)"', json.dumps(expected).replace('\\"', '"')))
    relabelled = re.findall(r'"replacement": "(\w+)"', json.dumps(of_kind(rendered["production"], "PodMonitor")))
    assert jobs == set(relabelled)


# A change of one value, and a word of the sentence that refuses it. None takes the value away.
API = "spec.template.spec.containers.0."
MISTAKES: list[tuple[str, str, Any, str]] = [
    ("Deployment/api", f"{API}readynessProbe", {}, "readynessProbe"),
    ("Deployment/api", f"{API}ports.0.containerPort", "8000", "not of type 'integer'"),
    ("Service/api", "spec.ports.0.port", "http", "not of type 'integer'"),
    ("ScaledObject/worker", "spec.maxReplicas", 3, "maxReplicas"),
    ("ScaledObject/worker", "spec.minReplicaCount", 0, "less than the minimum"),
    ("ScaledObject/worker", "spec.triggers.0.metadata.value", 50, "not of type 'string'"),
    ("TriggerAuthentication/worker", "spec.secretTargetRef.0.secret", "x", "secret"),
    ("PodMonitor/api", "spec.podMetricsEndpoints.0.scrapeInterval", "15s", "scrapeInterval"),
    ("PodMonitor/api", "spec.podMetricsEndpoints.0.port", "metrics", "no pod has a port metrics"),
    ("PrometheusRule/service", "spec.groups.0.rules.0.expression", "1", "expression"),
    ("Ingres/api", "spec", {}, "Couldn't find schema"),
    ("Deployment/api", f"{API}image", None, "has no image of a version"),
    ("Deployment/api", f"{API}image", "registry.example.com:5000/api", "has no image of a version"),
    ("Deployment/api", f"{API}resources.limits", None, "has any memory"),
    ("Deployment/api", f"{API}securityContext.allowPrivilegeEscalation", True, "has more privileges"),
    ("Deployment/api", f"{API}securityContext.readOnlyRootFilesystem", None, "has a root file system"),
    ("Deployment/api", f"{API}securityContext.capabilities", None, "has capabilities"),
    ("Deployment/api", "spec.template.spec.securityContext.runAsUser", 0, "has root"),
    ("Deployment/api", "spec.template.spec.securityContext.runAsNonRoot", None, "has root"),
    ("Deployment/api", "spec.template.spec.securityContext.seccompProfile", None, "has any system call"),
    ("Deployment/api", "spec.template.spec.automountServiceAccountToken", None, "has the token of an account"),
    ("Deployment/api", "spec.template.spec.volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}, "files of the node"),
    ("Deployment/api", f"{API}readinessProbe.httpGet.port", "https", "readinessProbe asks a port https"),
    ("Deployment/api", f"{API}envFrom.0.configMapRef.name", "setting", "there is no ConfigMap setting"),
    ("Deployment/api", f"{API}env.0", {"name": "DATABASE_PASSWORD", "value": "x"}, "has the value of DATABASE"),
    ("Secret/passwords", "stringData", {"DATABASE_PASSWORD": "x"}, "is in the files"),
    ("ConfigMap/settings", "data.DATABASE_PASSWORD", "x", "has the value of a secret"),
    ("ConfigMap/settings", "data.REDIS_URL", "redis://default:x@redis.data/0", "has the value of a secret"),
    ("Job/migrate", f"{API}env.0.valueFrom.configMapKeyRef.key", "OWNER_URL", "has OWNER_URL"),
    ("Namespace/shop-service", "metadata.labels", None, "does not enforce the restricted profile"),
    ("Service/api", "metadata.namespace", "default", "is in another namespace"),
    ("Service/api", "spec.selector", {"app.kubernetes.io/component": "apy"}, "selects nothing"),
    ("PodDisruptionBudget/api", "spec.selector.matchLabels", {"app": "api"}, "selects nothing"),
    ("Deployment/api", "spec.selector.matchLabels", {"app.kubernetes.io/component": "worker"}, "other pods than its"),
    ("HorizontalPodAutoscaler/api", "spec.scaleTargetRef.name", "apy", "scales nothing"),
    ("NetworkPolicy/default-deny", "spec.policyTypes", ["Ingress"], "nothing is denied by default"),
    ("NetworkPolicy/dns", "spec.egress.0.ports", [{"protocol": "TCP", "port": 54}], "cannot look up names"),
    ("NetworkPolicy/to-pooler", "spec.egress.0.ports.0.port", 5432, "reach pooler:6432: no network policy lets it out"),
    ("NetworkPolicy/pooler", "spec.ingress", [], "reach pooler:6432: no network policy lets it in"),
    ("NetworkPolicy/to-postgres", "spec.egress.0.ports.0.port", 5433, "pooler cannot reach postgres-rw.data:5432"),
    ("Deployment/api", "spec.template.metadata.labels.pooler-client", None, "api cannot reach pooler:6432"),
    ("ConfigMap/settings", "data.DATABASE_URL", "postgresql://app@poller:6432/db", "which no Service has"),
    ("HorizontalPodAutoscaler/api", "spec.maxReplicas", 20, "20 pods may run, but API_REPLICAS is 10"),
    ("ScaledObject/worker", "spec.maxReplicaCount", 5, "5 pods may run, but WORKER_REPLICAS is 4"),
    ("ConfigMap/settings", "data.DB_MAX_CONNECTIONS", "300", "is not DB_MAX_CONNECTIONS"),
]  # fmt: skip


def changed(manifests: list[Manifest], name: str, path: str, value: Any) -> list[Manifest]:
    """Return manifests with another value at a place of one of them, which is made where it is not there."""
    others = [one for one in manifests if name_of(one) != name]
    kind, _, simple = name.partition("/")
    new = {"apiVersion": "v1", "kind": kind, "metadata": {"name": simple, "namespace": "shop-service"}}
    manifest: Any = copy.deepcopy(next((one for one in manifests if name_of(one) == name), new))
    *way, last = (int(step) if step.isdigit() else step for step in re.split(r"\.(?!kubernetes|io/)", path))
    place = manifest
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return [*others, manifest]


@pytest.mark.parametrize(("name", "path", "value", "word"), MISTAKES)
def test_a_mistake_is_refused(manifests: dict[str, Rendered], name: str, path: str, value: Any, word: str) -> None:
    mistaken = changed(manifests["fullest"]["production"], name, path, value)
    assert [found for found in problems(mistaken) if word in found]


# Settings of the service, and what its own check says of them.
BUDGETS = """
import json, sys
from app.config import NAME, Settings

def budget(variables):
    try:
        return Settings(_env_file=None, **{name.lower(): value for name, value in variables.items()}).connection_budget
    except ValueError as error:
        return str(error)

print(json.dumps([NAME, *map(budget, json.load(sys.stdin))]))
"""


@pytest.fixture(scope="module")
def python(projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fullest variant has installed is enough for the others."""
    return install(projects["fullest"], tmp_path_factory) / ".venv/bin/python"


def budgets(python: Path, project: Path, *settings: dict[str, Any]) -> list[Any]:
    """Return the name of the service, and of each settings the planned and the allowed connections, or a refusal."""
    command = [str(python), "-c", BUDGETS]
    done = subprocess.run(
        command,
        cwd=project,
        env=clean_environment(),
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: list[Any] = json.loads(done.stdout)
    return answer


def plans(manifests: list[Manifest], *, queued: bool) -> list[dict[str, Any]]:
    """Return what the service is told, and the same sums in other cases, the last of which is too large."""
    pods = dict(pods_of(manifests))
    api, migrate = (environment_of(manifests, pods[name]) for name in ("Deployment/api", "Job/migrate"))
    # A release runs the pods of two for a while.
    release = api | {"API_REPLICAS": 2 * int(api["API_REPLICAS"])}
    release |= {"WORKER_REPLICAS": 2 * int(api["WORKER_REPLICAS"])} if queued else {}
    # To PostgreSQL, each PgBouncer is what a pod of the API is without one.
    (poolers,) = (one["spec"]["replicas"] for one in manifests if name_of(one) == "StatefulSet/pooler")
    size = option(configuration(manifests, "pooler")["pgbouncer.ini"], "max_db_connections")
    arguments = json.dumps(pods.get("StatefulSet/postgres", "max_connections=100"))
    (limit,) = re.findall(r"max_connections=(\d+)", arguments)
    server = api | {"API_REPLICAS": poolers, "DB_POOL_SIZE": size, "DB_MAX_CONNECTIONS": limit}
    server |= {"WORKER_REPLICAS": 1, "WORKER_CONCURRENCY": 1} if queued else {}
    return [{"ENVIRONMENT": "production", **one} for one in (api, migrate, release, server, api | {"API_REPLICAS": 40})]


def test_the_connections_fit(python: Path, deployed: Path, rendered: Rendered, named: str) -> None:
    """By the check of the service itself."""
    queued = VARIANTS[named]["queued_writes"]
    settings = [one for overlay in OVERLAYS for one in plans(rendered[overlay], queued=queued)]
    name, *found = budgets(python, deployed, *settings)
    for *fits, refusal in (found[:5], found[5:]):
        assert all(isinstance(one, list) and one[0] <= one[1] for one in fits), fits
        assert "40 API workers x 5 + 10 in reserve" in refusal
    # The service counts one Celery process at least; PgBouncer has none.
    planned = found[8][0] - queued
    assert f"2 x 20 + 10 = {planned}," in (deployed / "docs/kubernetes.md").read_text(encoding="utf-8")
    for scaler in of_kind(rendered["production"], "ScaledObject"):
        assert scaler["spec"]["triggers"][0]["metadata"]["queueName"] == f"{name}.rows"


@pytest.mark.parametrize("named", ["fullest", "least"])
def test_the_test_of_the_project_is_clean_and_passes(python: Path, deployed: Path) -> None:
    test = "tests/test_kubernetes.py"
    for tool in (
        ["pytest", "-q", "-p", "no:cacheprovider"],
        ["ruff", "check", "--no-cache"],
        ["ruff", "format", "--check"],
    ):
        command = [str(python), "-m", *tool, test]
        done = subprocess.run(
            command, cwd=deployed, env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_pods_have_the_time_that_the_service_takes(rendered: Rendered) -> None:
    for manifests in rendered.values():
        spec = dict(pods_of(manifests))["Deployment/api"]["spec"]
        settings = configuration(manifests, "settings")
        sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] == sleep + int(settings["GRACEFUL_TIMEOUT"]) + 5


def test_every_command_of_the_document_fits_the_manifests(deployed: Path, rendered: Rendered) -> None:
    """Those that need a cluster are followed as far as there is none."""
    names = {name_of(one).lower() for manifests in rendered.values() for one in manifests}
    (deployed / "production.env").write_text("DATABASE_PASSWORD=x\n", encoding="utf-8")
    commands = commands_of((deployed / "docs/kubernetes.md").read_text(encoding="utf-8"))
    assert len(commands) >= 14
    for command in commands:
        assert "\n" not in command
        program, *words = shlex.split(command)
        if program != "kubectl":
            assert command in ("docker build --tag shop_service:dev .", "make kubernetes-rules")
            continue
        if words[0] == "-n":
            assert words[1] == "shop-service"
            words = words[2:]
        if words[:2] == ["create", "secret"]:
            if kustomize() == ["kubectl", "kustomize"]:
                dry = ["kubectl", *words, "--dry-run=client", "--output=name"]
                done = subprocess.run(dry, cwd=deployed, capture_output=True, text=True, check=False)
                assert done.stdout.startswith("secret/"), done.stderr
            continue
        paths = [word for word in words if word.startswith("kubernetes/")]
        things = [word for word in words if re.fullmatch(r"(deployment|job|service)/\w+", word)]
        assert len(paths + things) == 1, command
        assert all((deployed / path).exists() for path in paths), command
        assert set(things) <= names, command


def test_the_image_serves_what_the_manifests_ask() -> None:
    """The user, the port and the file of the heartbeat are those of the image."""
    dockerfile = (TEMPLATE / "Dockerfile").read_text(encoding="utf-8")
    base = TEMPLATE / "kubernetes/base"
    api = dict(pods_of(list(yaml.safe_load_all((base / "api.yaml").read_text(encoding="utf-8")))))["Deployment/api"]
    user = api["spec"]["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in dockerfile
    assert f"EXPOSE {api['spec']['containers'][0]['ports'][0]['containerPort']}\n" in dockerfile
