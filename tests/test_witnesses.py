"""Each answer does what its question promises: a witness observes it, and no longer does when the wiring is cut."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from cookiecutter.main import cookiecutter

from tests.conftest import environment_of, install
from tests.variants import QUESTIONS, ROOT, TEMPLATE, answers_to, features, variants_to_test

# What the service of a project says of itself, which servers it misses, and whether it sends traces to a collector.
PROBE = """
import json, os, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Collector(BaseHTTPRequestHandler):
    asked = threading.Event()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.asked.set()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass

collector = HTTPServer(("127.0.0.1", 0), Collector)
threading.Thread(target=collector.serve_forever, daemon=True).start()
os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_port}"
os.environ["OTEL_TRACES_SAMPLER_ARG"] = "1"
os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "50"

from starlette.testclient import TestClient
from app.main import app

with TestClient(app) as client:
    document = client.get("/openapi.json").json()
    path = next(path for path in document["paths"] if path.count("/") == 1 and not path.endswith("z"))
    client.get(path)
    traces = os.path.exists("app/tracing.py") and Collector.asked.wait(5)
    silent = client.get("/readyz").json()["detail"].partition("no answer from: ")[2].partition(".")[0].split(", ")
body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
print(json.dumps({
    "title": document["info"]["title"], "description": document["info"]["description"], "path": path,
    "body": body.rpartition("/")[2], "silent": silent, "traces": traces,
}))
"""


class Cut(NamedTuple):
    """A line of the template that makes an answer true, and what to write instead of it."""

    file: str
    text: str
    instead: str


class Witness(NamedTuple):
    """What is seen in a project, what has to be seen there for an answer, and where the answer is wired.

    `samples` are the answers to what is free text.
    """

    sees: Callable[[Path], Any]
    promised: Callable[[Any], Any]
    wiring: Cut
    samples: tuple[Any, ...] = ()


@cache
def told_by(project: Path) -> dict[str, Any]:
    """Return what the service of a project tells; nothing listens where its cache and its broker should be."""
    done = subprocess.run(
        [project / ".venv/bin/python", "-c", PROBE],
        cwd=project,
        env=environment_of(
            DATABASE_URL="sqlite+aiosqlite://", REDIS_URL="redis://127.0.0.1:1", BROKER_URL="amqp://127.0.0.1:1"
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def tells(name: str) -> Callable[[Path], Any]:
    return lambda project: told_by(project)[name]


def needs(server: str) -> Callable[[Path], bool]:
    return lambda project: server in told_by(project)["silent"]


def yaml_in(project: Path, path: str) -> Any:
    return yaml.safe_load((project / path).read_text(encoding="utf-8"))


def workers_of(project: Path) -> int:
    """Return how many workers Gunicorn starts in a container that may use one CPU."""
    given = yaml_in(project, "docker-compose.yml")["services"]["api"]["environment"]["WEB_CONCURRENCY"]
    dockerfile = (project / "Dockerfile").read_text(encoding="utf-8")
    entrypoint, command = (
        json.loads(line) for line in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*)$", dockerfile, re.MULTILINE)
    )
    done = subprocess.run(
        [*entrypoint, *command, "--print-config"],
        cwd=project,
        env=environment_of(
            PYTHON_CPU_COUNT=1,
            WEB_CONCURRENCY=given.removeprefix("${WEB_CONCURRENCY:-").removesuffix("}"),
            PATH=f"{project / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(re.search(r"^workers +=? *(\d+)$", done.stdout, re.MULTILINE)[1])  # type: ignore[index]


def images_of(project: Path) -> set[str]:
    """Return the images of Python on which the project's image is built."""
    text = (project / "Dockerfile").read_text(encoding="utf-8")
    defaults = dict(re.findall(r'^ARG (\w+)="?([^"\n]*)"?$', text, re.MULTILINE))
    images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    return {re.sub(r"\$\{(\w+)\}", lambda name: defaults[name[1]], image) for image in images}


def name_of_image(project: Path) -> str:
    return str(yaml_in(project, "docker-compose.yml")["services"]["api"]["image"])


def license_of(project: Path) -> tuple[str, str]:
    """Return what the package and its licence file say."""
    declared = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    text = (project / "LICENSE").read_text(encoding="utf-8")
    return declared, next(words for words in FIRST_WORDS.values() if words in text)


FIRST_WORDS = {
    "MIT": "MIT License",
    "Apache-2.0": "Apache License",
    "BSD-3-Clause": "BSD 3-Clause License",
    "Proprietary": "All rights reserved",
}


def holder_of(project: Path) -> str:
    """Return who holds the copyright."""
    found = re.search(r"Copyright (?:\(c\) )?\d{4},? (.+?)\.?$", (project / "LICENSE").read_text("utf-8"), re.MULTILINE)
    return found[1] if found else ""


def pipelines_of(project: Path) -> dict[str, bool]:
    """Return the pipelines that are there, and whether they run the tests."""
    found = {}
    if (project / ".github/workflows/ci.yml").exists():
        jobs = yaml_in(project, ".github/workflows/ci.yml")["jobs"].values()
        found["github"] = any("test" in job.get("strategy", {}).get("matrix", {}).get("target", []) for job in jobs)
    if (project / ".gitlab-ci.yml").exists():
        jobs = yaml_in(project, ".gitlab-ci.yml").values()
        found["gitlab"] = any("make test" in job.get("script", []) for job in jobs if isinstance(job, dict))
    return found


def runs_in_a_cluster(project: Path) -> bool:
    """Whether the base for Kubernetes has a Deployment of the API."""
    base = project / "kubernetes/base"
    if not base.exists():
        return False
    files = yaml_in(project, "kubernetes/base/kustomization.yaml")["resources"]
    manifests = [one for file in files for one in yaml.safe_load_all((base / file).read_text(encoding="utf-8"))]
    return ("Deployment", "api") in [(one["kind"], one["metadata"]["name"]) for one in manifests]


WITNESSES = {
    "project_name": Witness(
        tells("title"),
        str,
        Cut("app/main.py", 'title="{{ cookiecutter.__project_name }}"', 'title="Service"'),
        ('Çafé "Ole"', "12 Monkeys"),
    ),
    "project_slug": Witness(
        name_of_image,
        str,
        Cut("docker-compose.yml", 'image: "{{ cookiecutter.project_slug }}"', 'image: "service"'),
        ("orders", "cafe_ole-2"),
    ),
    "resource": Witness(
        tells("body"),
        lambda name: "".join(part.capitalize() for part in name.split("_")) + "Create",
        Cut("../hooks/post_gen_project.py", 'ONE, MANY = ANSWERS["resource"], ', 'ONE, MANY = "thing", '),
        ("purchase_order", "box"),
    ),
    "resource_plural": Witness(
        tells("path"),
        lambda names: f"/{names}",
        Cut("../hooks/post_gen_project.py", ', ANSWERS["resource_plural"]\n', ', "things"\n'),
        ("purchase_orders", "boxes"),
    ),
    "description": Witness(
        tells("description"),
        str,
        Cut("app/main.py", 'description="{{ cookiecutter.__description }}"', 'description="A service"'),
        (r'What "we" sell \ rent', "Boxes, and what is in them"),
    ),
    "author_name": Witness(
        holder_of,
        str,
        Cut("LICENSE", "{{ cookiecutter.author_name }}", "The authors"),
        ("Ada Lovelace", "José Ñandú"),
    ),
    "license": Witness(
        license_of,
        lambda name: (name.replace("Proprietary", "LicenseRef-Proprietary"), FIRST_WORDS[name]),
        Cut("pyproject.toml", '"{{ cookiecutter.__license_id }}"', '"0BSD"'),
    ),
    "python_version": Witness(
        images_of,
        lambda version: {f"python:{version}-slim"},
        Cut("Dockerfile", "python:{{ cookiecutter.python_version }}-slim", "python:3-slim"),
    ),
    "workers": Witness(
        workers_of,
        lambda number: int(number.replace("auto", "1")),
        Cut("docker-compose.yml", "${WEB_CONCURRENCY:-{{ cookiecutter.workers }}}", "${WEB_CONCURRENCY:-9}"),
        ("3", "auto"),
    ),
    "caching": Witness(needs("cache"), bool, Cut("app/main.py", "if settings.redis_url:", "if False:")),
    "queued_writes": Witness(needs("broker"), bool, Cut("app/main.py", "if settings.broker_url:", "if False:")),
    "observability": Witness(
        tells("traces"),
        bool,
        Cut("app/main.py", "await stack.enter_async_context(open_traces(settings))", "assert open_traces"),
    ),
    "ci": Witness(
        pipelines_of,
        lambda system: {} if system == "none" else {system: True},
        Cut(".github/workflows/ci.yml", "target: [lint, test, ", "target: [lint, "),
    ),
    "deployment": Witness(
        runs_in_a_cluster,
        lambda where: bool(where == "kubernetes"),
        Cut("kubernetes/base/kustomization.yaml", "  - api.yaml\n", ""),
    ),
}


def tried(question: str) -> list[Any]:
    return list(WITNESSES[question].samples) or answers_to(question)


def projects() -> Iterator[dict[str, Any]]:
    """Yield the answers of few projects in which each answer is given."""
    for turn in range(max(len(tried(question)) for question in WITNESSES)):
        given = {question: tried(question)[turn % len(tried(question))] for question in WITNESSES}
        yield given | variants_to_test()[turn]


def render_from(template: Path, directory: Path, answers: Mapping[str, Any]) -> Path:
    return Path(cookiecutter(str(template), no_input=True, output_dir=str(directory), extra_context=dict(answers)))


@pytest.fixture(scope="module", params=projects(), ids=lambda answers: answers["project_slug"] + answers["license"])
def witnessed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Answers, and the project that is rendered with them."""
    answers: dict[str, Any] = request.param
    return answers, install(render_from(ROOT, tmp_path_factory.mktemp("kept"), answers), tmp_path_factory)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Answers, and a project that is rendered with them from a template in which each of them is cut off."""
    template = tmp_path_factory.mktemp("cut")
    shutil.copytree(TEMPLATE, template / TEMPLATE.name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
    shutil.copytree(ROOT / "hooks", template / "hooks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "cookiecutter.json", template)
    for witness in WITNESSES.values():
        path = template / TEMPLATE.name / witness.wiring.file
        text = path.read_text(encoding="utf-8")
        assert witness.wiring.text in text, witness.wiring
        path.write_text(text.replace(witness.wiring.text, witness.wiring.instead), encoding="utf-8")
    answers = next(projects()) | {"deployment": "kubernetes"}
    return answers, install(render_from(template, template / "project", answers), tmp_path_factory)


def test_every_question_has_a_witness() -> None:
    assert set(WITNESSES) == set(QUESTIONS), "say for each question what its answers promise, and how that is seen"
    for question, witness in WITNESSES.items():
        given = [answers[question] for answers in projects()]
        assert {*map(str, given)} == {*map(str, tried(question))}, f"an answer to {question} is never given"
        assert len({str(witness.promised(answer)) for answer in given}) > 1, f"{question} promises nothing"
    assert all(any(answers[feature] for answers in projects()) for feature in features())


@pytest.mark.parametrize("question", WITNESSES)
def test_an_answer_does_what_it_promises(witnessed: tuple[dict[str, Any], Path], question: str) -> None:
    answers, project = witnessed
    witness = WITNESSES[question]
    assert witness.sees(project) == witness.promised(answers[question])


@pytest.mark.parametrize("question", WITNESSES)
def test_a_witness_sees_that_the_wiring_is_cut(cut: tuple[dict[str, Any], Path], question: str) -> None:
    answers, project = cut
    witness = WITNESSES[question]
    assert witness.sees(project) != witness.promised(answers[question])
