"""The dashboard and the alerts ask for what is there, and each alert has its cases and its entry in the runbook."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest

from app.highload.metrics.exposition import PATH
from app.highload.reads.sharing import counters_of

# {%- if cookiecutter.queued_writes +%}
from app.highload.worker import Counters

# {%- endif +%}
from tests.conftest import PROJECT

PROMETHEUS = PROJECT / "observe/prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
DASHBOARD = json.loads((PROJECT / "observe/grafana/dashboards/service.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

# What others expose, and the labels of it that are asked for.
OTHERS = {
    "up": {"job", "instance"},
    # postgres_exporter 0.17
    "pg_up": set[str](),
    "pg_settings_max_connections": set[str](),
    "pg_stat_activity_count": set[str](),
    # {% if cookiecutter.caching %}
    # redis_exporter 1.69
    "redis_up": set[str](),
    "redis_commands_processed_total": set[str](),
    "redis_evicted_keys_total": set[str](),
    "redis_memory_max_bytes": set[str](),
    "redis_memory_used_bytes": set[str](),
    # {% endif %}
    # {% if cookiecutter.queued_writes %}
    # RabbitMQ 4, /metrics/detailed
    "rabbitmq_detailed_queue_consumers": {"queue"},
    "rabbitmq_detailed_queue_messages_ready": {"queue"},
    "rabbitmq_detailed_queue_messages_unacked": {"queue"},
    # {% endif %}
}
OF_THE_SCRAPE = {"job", "instance"}
WORDS = {"and", "or", "unless"}


def expressions_of_panels() -> list[str]:
    """Return what the dashboard asks Prometheus."""
    return [target["expr"].replace("$__rate_interval", "1m") for panel in PANELS for target in panel["targets"]]


def expressions_of_rules() -> list[str]:
    """Return what the rules ask: on the line of `expr`, or on the lines below it that stand further in."""
    found = []
    for path in RULES:
        for indent, line, block in re.findall(
            r"^( +)expr: (?:\|\n((?:\1 +.*\n)+)|(.*)\n)", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            assert indent
            found.append(re.sub(r"#.*", "", line or block))
    return found


def asked(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the names of metrics in an expression, each with the labels by which it is chosen or summed."""
    summed = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", expression) for label in by.split(",")}
    bare = re.sub(r'\bby \([^)]*\)|\[[^\]]*\]|"[^"]*"', "", expression)
    for name, labels in re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?![\w:]| *\()(?:\{([^}]*)\})?", bare):
        if name not in WORDS:
            yield name, summed | set(re.findall(r"(\w+) *[=!]", labels))


async def exposed(client: httpx2.AsyncClient) -> dict[str, set[str]]:
    """Return the names of metrics that the service and its workers expose, each with its labels."""
    # {% if cookiecutter.queued_writes %}
    # Here the workers are this process.
    Counters.of("rows")
    # {% endif %}
    # A service may share no route.
    counters_of("/nowhere")
    await client.get("/nowhere")
    found: dict[str, set[str]] = {}
    for line in (await client.get(PATH)).text.splitlines():
        if not line.startswith("#"):
            name, labels = re.findall(r"^(\w+)(?:\{(.*)\})? ", line)[0]
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


async def test_every_expression_asks_for_what_is_there(client: httpx2.AsyncClient) -> None:
    recorded = {name: set[str]() for path in RULES for name in re.findall(r"record: (\S+)", path.read_text())}
    there = await exposed(client) | OTHERS | recorded
    expressions = expressions_of_panels() + expressions_of_rules()
    for expression in expressions:
        names = dict(asked(expression))
        assert names or expression.startswith("vector(")
        for name, labels in names.items():
            assert name in there, (name, expression)
            assert labels <= there[name] | OF_THE_SCRAPE, (name, labels - there[name], expression)


def test_the_names_and_labels_in_an_expression_are_found() -> None:
    expression = 'sum by (kind) (rate(a:b_total{job="x", le!~"a b"}[5m])) / max(c) > 14.4 * 0.001 and d or vector(0)'
    found = list(asked(expression))
    assert found == [("a:b_total", {"kind", "job", "le"}), ("c", {"kind"}), ("d", {"kind"})]


def test_every_panel_has_an_id_a_unit_and_a_place_of_its_own() -> None:
    panels = DASHBOARD["panels"]
    assert {count for _, count in Counter(panel["id"] for panel in panels).items()} == {1}
    taken = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert set(taken.values()) == {1}
    assert len(taken) == 24 * (1 + max(y for _, y in taken)), "no row is left empty"
    for panel in PANELS:
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "prometheus"


def alerts() -> list[str]:
    """Return the names of the alerts."""
    return [name for path in RULES for name in re.findall(r"- alert: (\w+)", path.read_text(encoding="utf-8"))]


def test_every_alert_has_its_entry_in_the_runbook() -> None:
    runbook = (PROJECT / "docs/runbook.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL)
    assert sorted(name for name, _ in entries) == sorted(alerts())
    for name, entry in entries:
        assert re.findall(r"^- \*\*(.*?)\*\*", entry, re.MULTILINE) == ["Means", "Users notice", "Look", "Do"], name
    for path in RULES:
        for name, rule in re.findall(r"- alert: (\w+)\n(.*?)(?=- alert|- name|\Z)", path.read_text(), re.DOTALL):
            assert f"runbook: docs/runbook.md#{name.lower()}\n" in rule
            assert re.search(r"severity: (page|ticket)\b", rule), name
            assert re.search(r"summary: .+\.\n", rule), name


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [
        (name, expected.startswith(" []"))
        for path in CASES
        for name, expected in re.findall(r"- alertname: (\w+)\n.*\n +exp_alerts:(.*\n)", path.read_text())
    ]
    assert set(cases) == {(name, quiet) for name in alerts() for quiet in (True, False)}


def test_promtool_accepts_the_rules_and_their_cases() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: docs/operate.md says how to test the rules in the container of Prometheus")
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", *map(str, CASES)]):
        done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
