"""What Kubernetes and Compose both need is the same for both."""

from pathlib import Path
from textwrap import indent

PROJECT = Path(__file__).parent.parent
KUBERNETES = PROJECT / "kubernetes"


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# {% if cookiecutter.observability %}
def test_the_rules_of_prometheus_are_the_same() -> None:
    documents = ["# Made of observe/prometheus/rules by make kubernetes-rules.\n"]
    for rules in sorted((PROJECT / "observe/prometheus/rules").glob("*.yml")):
        head = "---\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n"
        documents += [head, f"  name: {rules.stem}\nspec:\n", indent(text_of(rules), "  ")]
    assert text_of(KUBERNETES / "monitoring/rules.yaml") == "".join(documents), "run make kubernetes-rules"


# {% endif %}
def test_the_roles_of_the_database_are_the_same() -> None:
    roles = text_of(KUBERNETES / "overlays/development/roles.sh")
    assert f"    content: |\n{indent(roles, ' ' * 6)}" in text_of(PROJECT / "docker-compose.yml")
