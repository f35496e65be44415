"""What is wrong with manifests of Kubernetes, found without a cluster.

The kinds of Kubernetes have their own schemas. Of the kinds of operators, the schemas here know what is used, with its
types, and refuse everything else.
"""

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import yaml

type Manifest = dict[str, Any]
type Labels = Mapping[str, str]

VERSION = "1.36"
TEXT = {"type": "string"}
NUMBER = {"type": "integer", "minimum": 0}


def exactly(_required: str = "", /, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties and no other."""
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "required": _required.split(),
    }


def many(schema: Any) -> dict[str, Any]:
    """Return the schema of a list that is not empty."""
    return {"type": "array", "minItems": 1, "items": schema}


def mapping(schema: Any) -> dict[str, Any]:
    """Return the schema of an object with any names."""
    return {"type": "object", "additionalProperties": schema}


SELECTOR = exactly("matchLabels", matchLabels=mapping(TEXT))
DURATION = {"type": "string", "pattern": r"^(\d+(ms|s|m|h|d))+$"}
RULE = exactly("expr", alert=TEXT, record=TEXT, expr=TEXT, labels=mapping(TEXT), annotations=mapping(TEXT))
RULE["properties"]["for"] = DURATION
ENDPOINT = exactly(
    "port",
    port=TEXT,
    path=TEXT,
    interval=DURATION,
    params=mapping(many(TEXT)),
    relabelings=many(exactly("targetLabel replacement", targetLabel=TEXT, replacement=TEXT)),
)
BEHAVIOR = exactly("scaleDown", scaleDown=exactly(stabilizationWindowSeconds=NUMBER))
KINDS_OF_OPERATORS = {
    "keda.sh/v1alpha1 ScaledObject": exactly(
        "scaleTargetRef triggers",
        scaleTargetRef=exactly("name", name=TEXT),
        minReplicaCount={"type": "integer", "minimum": 1},
        maxReplicaCount={"type": "integer", "minimum": 1},
        advanced=exactly(horizontalPodAutoscalerConfig=exactly(behavior=BEHAVIOR)),
        triggers=many(
            exactly(
                "type metadata authenticationRef",
                type={"const": "rabbitmq"},
                metadata=exactly(
                    "queueName mode value",
                    protocol={"const": "amqp"},
                    mode={"const": "QueueLength"},
                    queueName=TEXT,
                    value=TEXT,
                ),
                authenticationRef=exactly("name", name=TEXT),
            )
        ),
    ),
    "keda.sh/v1alpha1 TriggerAuthentication": exactly(
        "secretTargetRef", secretTargetRef=many(exactly("parameter name key", parameter=TEXT, name=TEXT, key=TEXT))
    ),
    "monitoring.coreos.com/v1 PodMonitor": exactly(
        "selector podMetricsEndpoints",
        selector=SELECTOR,
        namespaceSelector=exactly(matchNames=many(TEXT)),
        podMetricsEndpoints=many(ENDPOINT),
    ),
    "monitoring.coreos.com/v1 PrometheusRule": exactly(
        "groups", groups=many(exactly("name rules", name=TEXT, rules=many(RULE)))
    ),
}


def kustomize() -> list[str] | None:
    """Return the command that renders an overlay, or None when there is none."""
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return ["kustomize", "build"] if shutil.which("kustomize") else None


def manifests_of(project: Path, overlay: str) -> list[Manifest]:
    """Return what kustomize makes of an overlay of a project."""
    command = kustomize()
    assert command
    directory = str(project / "kubernetes/overlays" / overlay)
    done = subprocess.run([*command, directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def name_of(manifest: Manifest) -> str:
    """Return kind and name, without the digest that kustomize adds."""
    name = re.sub(r"-[0-9a-z]{10}$", "", manifest["metadata"]["name"]) if manifest["kind"] == "ConfigMap" else None
    return f"{manifest['kind']}/{name or manifest['metadata']['name']}"


def problems(manifests: list[Manifest]) -> list[str]:
    """Return a sentence for everything that is wrong."""
    checks: list[Callable[[list[Manifest]], Iterator[str]]] = [
        schemas, security, secrets, namespaces, references, targets, selections, connections, scaling,
    ]  # fmt: skip
    return [problem for check in checks for problem in check(manifests)]


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """Return the manifests of some kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def schemas(manifests: list[Manifest]) -> Iterator[str]:
    """Ask the schema of each kind."""
    for manifest in manifests:
        problem = against_its_schema(json.dumps(manifest, sort_keys=True))
        if problem:
            yield f"{name_of(manifest)}: {problem}"


@functools.cache
def against_its_schema(text: str) -> str | None:
    """Return why a manifest does not fit its schema; the same one, of another overlay, is not asked for again."""
    manifest = json.loads(text)
    known = KINDS_OF_OPERATORS.get(f"{manifest['apiVersion']} {manifest['kind']}")
    try:
        if known is None:
            kubernetes_validate.validate(manifest, VERSION, strict=True)
        else:
            whole = exactly("spec", apiVersion=TEXT, kind=TEXT, metadata={"type": "object"}, spec=known)
            jsonschema.validate(manifest, whole, cls=jsonschema.Draft202012Validator)
    except kubernetes_validate.SchemaNotFoundError as error:
        return str(error.message)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return f"{error.json_path}: {error.message}"
    return None


def pods_of(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Yield the template of each pod, with the name of what makes it."""
    for manifest in of_kind(manifests, "Deployment", "StatefulSet", "Job"):
        yield name_of(manifest), manifest["spec"]["template"]


def security(manifests: list[Manifest]) -> Iterator[str]:
    """Ask for more than the restricted profile of Kubernetes does."""
    for name, pod in pods_of(manifests):
        spec = pod["spec"]
        of_pod = spec.get("securityContext", {})
        wanted = {
            "the token of an account": spec.get("automountServiceAccountToken") is False,
            "the addresses of services": spec.get("enableServiceLinks") is False,
            "root": of_pod.get("runAsNonRoot") is True and of_pod.get("runAsUser", 0) > 0,
            "any system call": of_pod.get("seccompProfile") == {"type": "RuntimeDefault"},
            "files of the node": all(
                volume.keys() & {"configMap", "emptyDir", "secret"} for volume in spec.get("volumes", [])
            ),
        }
        for container in spec["containers"]:
            of_container = container.get("securityContext", {})
            resources = container.get("resources", {})
            wanted |= {
                "more privileges": of_container.get("allowPrivilegeEscalation") is False,
                "a root file system that can be written": of_container.get("readOnlyRootFilesystem") is True,
                "capabilities": of_container.get("capabilities") == {"drop": ["ALL"]},
                "any memory": resources.get("limits", {}).get("memory") is not None,
                "no share of the CPU": resources.get("requests", {}).get("cpu") is not None,
                "no image of a version": re.search(r":(?!latest$)[\w.-]+$", container.get("image", "")) is not None,
            }
        yield from (f"{name} has {what}" for what, fine in wanted.items() if not fine)


def secrets(manifests: list[Manifest]) -> Iterator[str]:
    """Look for secrets in the files."""
    for manifest in of_kind(manifests, "Secret"):
        yield f"{name_of(manifest)} is in the files"
    for manifest in of_kind(manifests, "ConfigMap"):
        for key, value in manifest["data"].items():
            if key.endswith(("PASSWORD", "TOKEN", "KEY")) or re.search(r"://[^/\s:]*:[^/\s]+@", value):
                yield f"{name_of(manifest)} has the value of a secret in {key}"
    for name, pod in pods_of(manifests):
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                if "value" in variable and re.search(r"PASS(WORD)?$|TOKEN$", variable["name"]):
                    yield f"{name} has the value of {variable['name']}"


def namespaces(manifests: list[Manifest]) -> Iterator[str]:
    """Look for what is elsewhere, and at what the namespace enforces."""
    (namespace,) = of_kind(manifests, "Namespace")
    if namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace does not enforce the restricted profile"
    for manifest in manifests:
        if manifest is not namespace and manifest["metadata"].get("namespace") != namespace["metadata"]["name"]:
            yield f"{name_of(manifest)} is in another namespace"


def references(manifests: list[Manifest]) -> Iterator[str]:
    """Look for names that nothing has: of ConfigMaps with their keys, volumes and ports."""
    data = {manifest["metadata"]["name"]: manifest["data"] for manifest in of_kind(manifests, "ConfigMap")}
    for name, pod in pods_of(manifests):
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        maps: list[tuple[str, str | None]] = [
            (volume["configMap"]["name"], None) for volume in volumes.values() if "configMap" in volume
        ]
        there = volumes.keys() | {claim["metadata"]["name"] for claim in claims_of(manifests, name)}
        for container in pod["spec"]["containers"]:
            maps += maps_of(container)
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            yield from (f"{name}: there is no volume {volume}" for volume in mounted - there)
            ports = {port["name"] for port in container.get("ports", [])}
            for probe, port in probes_of(container):
                if port not in ports:
                    yield f"{name}: {probe} asks a port {port}"
        for config, key in maps:
            if config not in data:
                yield f"{name}: there is no ConfigMap {config}"
            elif key is not None and key not in data[config]:
                yield f"{name}: no ConfigMap {config} has {key}"


def maps_of(container: Manifest) -> Iterator[tuple[str, str | None]]:
    """Yield each ConfigMap of which variables are made, and the key where it is for one."""
    for source in container.get("envFrom", []):
        yield source["configMapRef"]["name"], None
    for variable in container.get("env", []):
        key = variable.get("valueFrom", {}).get("configMapKeyRef")
        if key:
            yield key["name"], key["key"]


def probes_of(container: Manifest) -> Iterator[tuple[str, str]]:
    """Yield each probe that asks a port, with the port."""
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        handler = container.get(probe, {})
        if handler.keys() & {"httpGet", "tcpSocket"}:
            yield probe, (handler.get("httpGet") or handler.get("tcpSocket"))["port"]


def targets(manifests: list[Manifest]) -> Iterator[str]:
    """Look at what the autoscalers name."""
    pods = {name for name, _ in pods_of(manifests)}
    for manifest in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        target = manifest["spec"]["scaleTargetRef"]
        if f"{target.get('kind', 'Deployment')}/{target['name']}" not in pods:
            yield f"{name_of(manifest)} scales nothing"
    authentications = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "TriggerAuthentication")}
    for manifest in of_kind(manifests, "ScaledObject"):
        for trigger in manifest["spec"]["triggers"]:
            if trigger["authenticationRef"]["name"] not in authentications:
                yield f"{name_of(manifest)} has no TriggerAuthentication"


def claims_of(manifests: list[Manifest], name: str) -> list[Manifest]:
    """Return the templates of volumes of a StatefulSet."""
    found = [manifest for manifest in of_kind(manifests, "StatefulSet") if name_of(manifest) == name]
    return [claim for manifest in found for claim in manifest["spec"].get("volumeClaimTemplates", [])]


def selected(selector: Labels, labels: Labels) -> bool:
    """Whether a selector selects a pod with these labels."""
    return selector.items() <= labels.items()


def selections(manifests: list[Manifest]) -> Iterator[str]:
    """Look for selectors that select no pod, and ports that no selected pod has."""
    pods = [pod for _, pod in pods_of(manifests)]
    (namespace,) = (manifest["metadata"]["name"] for manifest in of_kind(manifests, "Namespace"))
    for manifest in manifests:
        spec = manifest.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        elsewhere = spec.get("namespaceSelector", {}).get("matchNames", [namespace]) != [namespace]
        if not selector or elsewhere:
            continue
        labels = selector if manifest["kind"] == "Service" else selector.get("matchLabels", {})
        found = [pod for pod in pods if selected(labels, pod["metadata"]["labels"])]
        if not found:
            yield f"{name_of(manifest)} selects nothing"
        served = {port["name"] for pod in found for one in pod["spec"]["containers"] for port in one.get("ports", [])}
        named = [port["targetPort"] for port in spec.get("ports", [])] if manifest["kind"] == "Service" else []
        named += [endpoint["port"] for endpoint in spec.get("podMetricsEndpoints", [])]
        yield from (f"{name_of(manifest)}: no pod has a port {port}" for port in named if port not in served)
        own = spec.get("template", {}).get("metadata", {}).get("labels", labels)
        if not selected(labels, own):
            yield f"{name_of(manifest)} selects other pods than its own"
        for constraint in spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
            if not selected(constraint["labelSelector"]["matchLabels"], own):
                yield f"{name_of(manifest)} spreads other pods than its own"


def environment_of(manifests: list[Manifest], pod: Manifest) -> dict[str, str]:
    """Return what the first container of a pod has in its environment, without secrets."""
    data = {manifest["metadata"]["name"]: manifest["data"] for manifest in of_kind(manifests, "ConfigMap")}
    container = pod["spec"]["containers"][0]
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        variables |= data.get(source["configMapRef"]["name"], {})
    for variable in container.get("env", []):
        key = variable.get("valueFrom", {}).get("configMapKeyRef", {"name": None})
        value = variable.get("value", data.get(key["name"], {}).get(key.get("key")))
        if value is not None:
            variables[variable["name"]] = value
    return variables


def configuration(manifests: list[Manifest], name: str) -> dict[str, str]:
    """Return the data of a ConfigMap."""
    (found,) = (manifest for manifest in of_kind(manifests, "ConfigMap") if name_of(manifest) == f"ConfigMap/{name}")
    data: dict[str, str] = found["data"]
    return data


def option(ini: str, name: str) -> str:
    """Return an option of PgBouncer."""
    (value,) = re.findall(rf"^{name} = (.*)$", ini, re.MULTILINE)
    return str(value)


# What a pod talks to: the variable or the file with the address, and the port where it names none.
ADDRESSES = {"DATABASE_URL": 5432, "REDIS_URL": 6379, "BROKER_URL": 5672, "DATA_SOURCE_URI": 5432, "REDIS_ADDR": 6379}
WHO_USES = {
    "Deployment/api": {"DATABASE_URL", "REDIS_URL", "BROKER_URL"},
    "Deployment/worker": {"DATABASE_URL", "REDIS_URL", "BROKER_URL"},
    "Deployment/postgres-exporter": {"DATA_SOURCE_URI"},
    "Deployment/redis-exporter": {"REDIS_ADDR"},
    "Job/migrate": {"DATABASE_URL"},
}


def calls_of(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest, str, int]]:
    """Yield each pod with the host and the port of each server that it needs."""
    for name, pod in pods_of(manifests):
        for variable, address in environment_of(manifests, pod).items():
            if variable in WHO_USES.get(name, ()):
                parts = urlsplit(address if "://" in address else f"//{address}")
                yield name, pod, parts.hostname or "", parts.port or ADDRESSES[variable]
        if name == "StatefulSet/pooler":
            ini = configuration(manifests, "pooler")["database.ini"]
            for host, port in re.findall(r"\bhost=(\S+)(?: port=(\d+))?", ini):
                yield name, pod, host, int(port or 5432)


# A pod of the same namespace, by its labels, or the peer elsewhere as a policy must name it.
type Other = Labels | Manifest

DNS = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}


def connections(manifests: list[Manifest]) -> Iterator[str]:
    """Follow each pod to the servers that it needs, through the Services and the network policies."""
    policies = [manifest["spec"] for manifest in of_kind(manifests, "NetworkPolicy")]
    if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in policies:
        yield "nothing is denied by default"
    for name, pod, host, port in calls_of(manifests):
        labels = pod["metadata"]["labels"]
        servers = servers_of(manifests, host, port)
        if not servers:
            yield f"{name} calls {host}:{port}, which no Service has"
        for server in servers:
            elsewhere = "namespaceSelector" in server
            if not lets(rules_of(policies, "egress", labels), "to", server, port):
                yield f"{name} cannot reach {host}:{port}: no network policy lets it out"
            if not elsewhere and not lets(rules_of(policies, "ingress", server), "from", labels, port):
                yield f"{name} cannot reach {host}:{port}: no network policy lets it in"
        if not lets(rules_of(policies, "egress", labels), "to", DNS, 53):
            yield f"{name} cannot look up names"


def servers_of(manifests: list[Manifest], host: str, port: int) -> list[Other]:
    """Return the pods behind a host, or the namespace that it names."""
    (namespace,) = (manifest["metadata"]["name"] for manifest in of_kind(manifests, "Namespace"))
    # NAME, NAME.NAMESPACE, or, of a StatefulSet, POD.NAME.
    *_, last = host.split(".")
    for service in of_kind(manifests, "Service"):
        if service["metadata"]["name"] == last and port in [one["port"] for one in service["spec"]["ports"]]:
            labels = [pod["metadata"]["labels"] for _, pod in pods_of(manifests)]
            return [one for one in labels if selected(service["spec"]["selector"], one)]
    if "." not in host or last == namespace:
        return []
    return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": last}}}]


def rules_of(policies: list[Manifest], direction: str, labels: Labels) -> Iterator[Manifest]:
    """Yield the rules that hold for a pod with these labels."""
    for policy in policies:
        if selected(policy["podSelector"].get("matchLabels", {}), labels):
            yield from policy.get(direction, [])


def lets(rules: Iterator[Manifest], end: str, other: Other, port: int) -> bool:
    """Whether one of the rules has the other end, and the port."""
    for rule in rules:
        if port in [one["port"] for one in rule["ports"]]:
            for one in rule[end]:
                if one == other or (
                    one.keys() == {"podSelector"} and selected(one["podSelector"]["matchLabels"], other)
                ):
                    return True
    return False


def scaling(manifests: list[Manifest]) -> Iterator[str]:
    """Compare what may be started with what is planned, and PgBouncer with what the pods know of it."""
    settings = configuration(manifests, "settings")
    for kind, name, most, planned in (
        ("HorizontalPodAutoscaler", "api", "maxReplicas", "API_REPLICAS"),
        ("ScaledObject", "worker", "maxReplicaCount", "WORKER_REPLICAS"),
    ):
        scalers = [one for one in of_kind(manifests, kind) if one["metadata"]["name"] == name]
        pods = [one for one in manifests if name_of(one) == f"Deployment/{name}"]
        numbers = [one["spec"][most] for one in scalers] or [one["spec"].get("replicas", 1) for one in pods]
        if any(number != int(settings[planned]) for number in numbers):
            yield f"{name}: {numbers[0]} pods may run, but {planned} is {settings[planned]}"
    ini = configuration(manifests, "pooler")["pgbouncer.ini"]
    if option(ini, "max_client_conn") != settings["DB_MAX_CONNECTIONS"]:
        yield "max_client_conn of PgBouncer is not DB_MAX_CONNECTIONS"
