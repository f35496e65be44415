"""What observes the service, in Docker: the cases of the alerts in every variant, and, in the fullest one, a number for
every panel, and alerts that begin with a fault and end with it."""

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import PATIENCE, free_port
from tests.test_stack import Stack, eventually
from tests.variants import core_variants, name_of, render

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("docker")]

OBSERVED = [variant for variant in core_variants() if variant["observability"]]
UP = "docker compose --profile observe up --build -d --wait"
BUILD = "docker compose --profile observe build prometheus"
CHECK = (
    "docker compose --profile observe run --rm --no-deps --entrypoint sh prometheus "
    '-c "cd /etc/prometheus && promtool check config prometheus.yml && promtool test rules tests/*.yml"'
)
DOWN = "docker compose --profile observe down"

# Where no registry can be reached: the exporters of Debian at the places of those in the images.
EXPORTERS = """
FROM debian:trixie-slim
RUN apt-get update -qq \
    && apt-get install -qq --yes --no-install-recommends prometheus-postgres-exporter prometheus-redis-exporter \
    && ln -s /usr/bin/prometheus-redis-exporter /redis_exporter
USER 65534
ENTRYPOINT ["prometheus-postgres-exporter"]
"""


def can_be_had(image: str) -> bool:
    """Whether an image is there, or in a registry that can be reached."""
    commands = (["docker", "image", "inspect", image], ["docker", "pull", "--quiet", image])
    return any(subprocess.run(command, capture_output=True, check=False).returncode == 0 for command in commands)


def observed_project(directory: Path, **variant: bool) -> Path:
    """Render a project; what cannot be had here gives way to what Debian has, and Grafana to nothing."""
    slug = f"observe-{name_of(variant).replace('+', '-').replace('_', '-')}"
    project = render(directory, project_slug=slug, **variant)
    dockerfile = project / "observe/Dockerfile"
    text = dockerfile.read_text()
    prometheus, grafana = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    if not can_be_had(prometheus):
        dockerfile.write_text(text.replace(prometheus, "prom/prometheus:latest"))
    stand_ins = {} if can_be_had(grafana) else {"grafana": "!reset null"}
    compose = (project / "docker-compose.yml").read_text()
    for service, image in re.findall(r"^  (\S+-exporter):\n.*\n    image: (\S+)", compose, re.MULTILINE):
        if not can_be_had(image):
            stand_ins[service] = "{build: exporters}"
    (project / "exporters").mkdir()
    (project / "exporters/Dockerfile").write_text(EXPORTERS)
    lines = [f"  {name}: {service}\n" for name, service in stand_ins.items()]
    (project / "stand-ins.yml").write_text("".join(["services:", "\n" if lines else " {}\n", *lines]))
    with (project / ".env").open("a") as env:
        env.write("COMPOSE_FILE=docker-compose.yml:docker-compose.override.yml:stand-ins.yml\n")
        env.write(f"PROMETHEUS_PORT={free_port()}\nGRAFANA_PORT={free_port()}\n")
    return project


@contextmanager
def stack_of(project: Path) -> Iterator[Stack]:
    stack = Stack(project, free_port())
    try:
        yield stack
    finally:
        stack.run([*DOWN.split(), "-v", "--remove-orphans", "--rmi", "local", "--timeout", "10"])
        stack.client.close()


def sh(stack: Stack, command: str) -> str:
    done = stack.run(["sh", "-c", command])
    assert done.returncode == 0, (command, done.stdout)
    return done.stdout


# With the cache and the queue, and with neither: each has files of its own, and tags in those of all.
@pytest.mark.parametrize("variant", [OBSERVED[0], OBSERVED[-1]], ids=name_of)
def test_promtool_accepts_the_rules_and_their_cases(variant: dict[str, bool], tmp_path: Path) -> None:
    with stack_of(observed_project(tmp_path, **variant)) as stack:
        sh(stack, BUILD)
        tested = sh(stack, CHECK).partition("Unit Testing")[2]
        assert tested.count("SUCCESS") == 1 + variant["caching"] + variant["queued_writes"]


def sixty_times_faster(project: Path) -> None:
    """Let Prometheus look each second, and take a minute of each rule for a second."""
    for path in (project / "observe/prometheus").rglob("*.yml"):
        text = path.read_text().replace("15s", "1s")
        for unit, seconds in {"m": 1, "h": 60}.items():
            text = re.sub(rf"\b(\d+){unit}\b", lambda match, s=seconds: f"{int(match[1]) * s}s", text)  # type: ignore[misc]
        path.write_text(text)


class Prometheus:
    """What the Prometheus of a stack answers."""

    def __init__(self, client: httpx2.Client) -> None:
        self._client = client

    def ask(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def numbers(self, expression: str) -> list[float]:
        """Return what an expression evaluates to, without what is no number."""
        found = self.ask("query", query=expression.replace("$__rate_interval", "10s"))["result"]
        values = (float(sample["value"][1]) for sample in found)
        return [value for value in values if value == value]  # noqa: PLR0124 - NaN differs from itself

    def firing(self) -> set[str]:
        """Return the alerts that fire; of a part that is down, with its name."""
        alerts = [alert["labels"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {f"{one['job']}Down" if one["alertname"] == "PartDown" else one["alertname"] for one in alerts}


def address(stack: Stack, service: str, port: int) -> str:
    return "http://" + stack.compose("--profile", "observe", "port", service, str(port)).strip()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    project = observed_project(tmp_path_factory.mktemp("observed"), **OBSERVED[0])
    secrets = project / ".env"
    secrets.write_text(secrets.read_text().replace("_PASSWORD=", "_PASSWORD=P@ss/w0rd#1:%"))
    subprocess.run(["chmod", "-R", "go=", "observe"], cwd=project, check=True)
    sixty_times_faster(project)
    with stack_of(project) as stack:
        started = stack.run(UP.split())
        assert started.returncode == 0, started.stdout + stack.logs()
        with loaded(stack):
            yield stack


@contextmanager
def loaded(stack: Stack) -> Iterator[None]:
    """Let a client read and write all the time."""
    ended = threading.Event()

    def load() -> None:
        with httpx2.Client(base_url=stack.client.base_url, timeout=PATIENCE) as client:
            while not ended.is_set():
                with suppress(httpx2.TransportError):
                    one_round(client)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def one_round(client: httpx2.Client) -> None:
    client.post("/items", json={"name": "x", "description": "y"})
    for known in client.get("/items").json().get("items", [])[-1:]:
        client.get(f"/items/{known['id']}")
        client.get(f"/items/{known['id']}")
        client.patch(f"/items/{known['id']}", json={"name": "z"})


@pytest.fixture(scope="module")
def prometheus(stack: Stack) -> Iterator[Prometheus]:
    with httpx2.Client(base_url=address(stack, "prometheus", 9090), timeout=PATIENCE) as client:
        yield Prometheus(client)


def test_prometheus_finds_a_number_for_every_panel(stack: Stack, prometheus: Prometheus) -> None:
    dashboard = json.loads((stack.project / "observe/grafana/dashboards/service.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) >= 20
    for panel in panels:
        for target in panel["targets"]:
            eventually(lambda expr=target["expr"]: prometheus.numbers(expr))
    names = (stack.project / "tests/test_observe.py").read_text()
    others = re.findall(r'^    "(\w+)": (?:set|\{)', names, re.MULTILINE)
    assert len(others) >= 10
    assert set(others) <= set(prometheus.ask("label/__name__/values"))


def test_alerts_begin_with_a_fault_and_end_with_it(stack: Stack, prometheus: Prometheus) -> None:
    # How long requests take, and how many wait, is for the machine to say.
    ours = {"InvalidationsOwed", "QueueWithoutConsumer", "WritesBypassQueue"}
    ours |= {f"{job}Down" for job in ("api", "postgres", "prometheus", "rabbitmq", "redis", "worker")}

    def await_exactly(*names: str) -> None:
        with suppress(AssertionError):
            eventually(lambda: prometheus.firing() & ours == set(names))
        assert prometheus.firing() & ours == set(names)

    await_exactly()
    stack.compose("stop", "redis", "worker")
    await_exactly("redisDown", "InvalidationsOwed", "workerDown", "QueueWithoutConsumer")
    stack.compose("up", "--detach", "--scale", "worker=2")
    await_exactly()
    eventually(lambda: prometheus.numbers('count(up{job="worker"} == 1)') == [2])
    stack.compose("stop", "rabbitmq")
    await_exactly("rabbitmqDown", "WritesBypassQueue")
    stack.compose("start", "rabbitmq")
    await_exactly()


def test_the_commands_of_the_runbook(stack: Stack) -> None:
    commands = re.findall(r"```bash\n(.*)\n```", (stack.project / "docs/runbook.md").read_text())
    assert len(commands) >= 8
    for command in commands:
        sh(stack, command.replace("http://127.0.0.1:8000", str(stack.client.base_url).rstrip("/")))


def test_who_observes_may_do_little(stack: Stack) -> None:
    services = stack.compose("--profile", "observe", "ps", "--services").split()
    for service in {"prometheus", "postgres-exporter", "redis-exporter", "grafana"} & set(services):
        status = stack.compose("--profile", "observe", "exec", "-T", service, "cat", "/proc/1/status")
        assert re.search(r"^Uid:\t[1-9]", status, re.MULTILINE), service
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE), service
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE), service
    ports = stack.compose("--profile", "observe", "ps", "--format", "{{.Ports}}")
    assert set(re.findall(r"(\S+):\d+->", ports)) == {"127.0.0.1"}
    assert stack.sql("SELECT has_table_privilege('observer', 'items', 'SELECT');") == "f"
    containers = stack.compose("--profile", "observe", "ps", "--quiet", *services).split()
    inspected = json.loads(stack.run(["docker", "inspect", *containers]).stdout)
    exporters = [one for one in inspected if re.search("exporter|grafana|prometheus", one["Name"])]
    assert len(exporters) >= 3
    assert "P@ss" not in json.dumps(exporters)
    if "grafana" in services:
        secret = re.findall(r"^GRAFANA_PASSWORD=(.*)$", (stack.project / ".env").read_text(), re.MULTILINE)[0]
        url = address(stack, "grafana", 3000) + "/api/dashboards/uid/highload"
        board = eventually(lambda: httpx2.get(url, auth=("admin", secret)).json().get("dashboard"))
        assert len(board["panels"]) >= 20
