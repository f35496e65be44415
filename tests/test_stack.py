"""The production stack of each variant in Docker, driven through its port."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import PATIENCE, clean_environment, free_port, make, options_for_tests
from tests.variants import documents, is_fullest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("docker")]

# Not every machine still has the name of Compose as it was.
ORIGINAL_COMPOSE = "docker-compose" if shutil.which("docker-compose") else "docker compose"

# What a pipeline does with the image; tests/test_ci.py compares.
UP = "docker compose up --build -d --wait"
SMOKE = "make smoke"
SMOKE_BESIDE_DOCKER = "make smoke URL=http://docker:8001"
UNDO_AND_REDO = (
    'docker compose run --rm migrate sh -c "alembic downgrade base && alembic upgrade head && alembic check"'
)
LOGS = "docker compose logs"
DOWN = "docker compose down -v"


class Stack:
    """The containers of a rendered project."""

    def __init__(self, project: Path, port: int) -> None:
        self.project = project
        # On a busy machine Redis is late, and not away.
        self._environment = {**clean_environment(), "PORT": str(port), "CACHE_TIMEOUT": "5"}
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)

    def run(
        self, arguments: Sequence[str], *, text: str = "", timeout: float = 3 * PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's directory."""
        return subprocess.run(
            arguments,
            cwd=self.project,
            env=self._environment,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run_in_a_pipeline(self, command: str) -> str:
        """Run a command as a pipeline does, without the file for developers, and return what it prints."""
        local = command.replace("docker:8001", self.client.base_url.netloc.decode())
        done = self.run(["env", "COMPOSE_FILE=docker-compose.yml", "bash", "-e", "-c", local])
        assert done.returncode == 0, (command, done.stdout)
        return done.stdout

    def compose(self, *arguments: str, command: str = "docker compose", **options: Any) -> str:
        """Run a command of Compose and return what it prints."""
        done = self.run([*command.split(), *arguments], **options)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def sql(self, statement: str) -> str:
        """Run a statement as a user would, and return its result."""
        psql = ["exec", "-T", "db", "psql", "-U", "postgres", "-d", "db"]
        return self.compose(*psql, "--tuples-only", "--no-align", text=statement).strip()

    def remove(self) -> None:
        """Remove all containers with their data and their image."""
        self.compose("down", "-v", "--remove-orphans", "--rmi", "local", "--timeout", "10")

    def logs(self, *services: str) -> str:
        """Return the logs."""
        return self.compose("logs", "--no-color", *services)


@pytest.fixture(scope="module")
def stack(docker_project: Path) -> Iterator[Stack]:
    stack = Stack(docker_project, free_port())
    # A run that was killed leaves containers and a database with another password.
    stack.remove()
    try:
        started = stack.run(UP.split())
        assert started.returncode == 0, started.stdout + stack.logs()
        yield stack
        stack.run_in_a_pipeline(DOWN)
        assert not stack.compose("ps", "--all", "--quiet")
    finally:
        stack.remove()
        stack.client.close()


def eventually(condition: Any, *, within: float = PATIENCE) -> Any:
    """Return the first true result of a condition."""
    deadline = time.monotonic() + within
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def create(stack: Stack, **headers: str) -> httpx2.Response:
    return stack.client.post("/items", json={"name": "x", "description": "y"}, headers=headers)


def test_an_item_lives_and_dies(stack: Stack, answers: dict[str, Any]) -> None:

    def stored_or_queued() -> httpx2.Response | None:
        created = create(stack)
        return created if created.status_code == (202 if answers["queued_writes"] else 201) else None

    created = eventually(stored_or_queued)
    item, location = created.json(), created.headers["location"]
    eventually(lambda: stack.client.get(location).status_code == 200)
    assert stack.client.get(location).json() == item
    eventually(lambda: item in stack.client.get("/items").json()["items"])
    assert stack.client.patch(location, json={"name": "z"}).json() == item | {"name": "z"}
    assert stack.client.get("/items").json()["items"][0]["name"] == "z"
    assert stack.client.delete(location).status_code == 204
    assert stack.client.get(location).status_code == 404
    assert stack.client.get("/readyz").status_code == 200


def test_a_pipeline_asks_the_service(stack: Stack) -> None:
    for command in (SMOKE, SMOKE_BESIDE_DOCKER):
        assert " is ready: an item was created, read, listed and deleted." in stack.run_in_a_pipeline(command)
    assert "Application startup complete" in stack.run_in_a_pipeline(LOGS)


def test_to_start_what_runs_replaces_no_container(stack: Stack) -> None:
    running = stack.compose("ps", "--quiet")
    stack.compose("up", "--detach", "--wait")
    assert stack.compose("ps", "--quiet") == running


def test_the_cache_answers(stack: Stack, answers: dict[str, Any]) -> None:
    stack.client.get("/items")
    if answers["caching"]:
        # Redis that a busy machine keeps from its answer is left alone for a while.
        eventually(lambda: stack.client.get("/items").headers["x-cache"] == "hit")
    else:
        assert stack.client.get("/items").headers["x-cache"] == "miss"


def test_the_answers_reach_the_containers(stack: Stack, answers: dict[str, Any]) -> None:
    version = stack.compose("exec", "-T", "api", "python", "--version")
    assert version.startswith(f"Python {answers['python_version']}.")
    code = "from app.config import load_settings; print(load_settings().web_concurrency)"
    workers = stack.compose("exec", "-T", "api", "python", "-c", code).split()[-1]
    assert answers["workers"] in (workers, "auto")
    assert stack.logs("api").count("Booting worker") == int(workers)


def test_the_container_is_locked_down(stack: Stack) -> None:
    script = "id -u; touch /srv/x 2>&1; touch /tmp/x && echo tmp; grep CapEff /proc/self/status; env | grep -c PASSWORD"
    lines = stack.compose("exec", "-T", "api", "sh", "-c", script + "; true").splitlines()
    assert int(lines[0]) > 0
    assert "Read-only file system" in lines[1]
    assert lines[2] == "tmp"
    assert lines[3].split()[1] == "0" * 16
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", stack.project.name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "PASSWORD" not in history
    published = stack.compose("ps", "--format", "{{.Service}} {{.Ports}}")
    assert [line.split()[0] for line in published.splitlines() if "->" in line] == ["api"]
    assert "127.0.0.1:" in published
    assert "0.0.0.0:" not in published


def test_every_process_may_do_what_it_needs(stack: Stack, answers: dict[str, Any]) -> None:
    for service in stack.compose("ps", "--services").split():
        status = stack.compose("exec", "-T", service, "cat", "/proc/1/status")
        assert re.search(r"^Uid:\t[1-9]", status, re.MULTILINE), service
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE), service
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE), service
    clients = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'psql'"
    assert stack.sql(f"SELECT DISTINCT usename {clients};") == "app"
    assert stack.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'items';") == "owner"
    assert stack.sql("SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin;") == "postgres"
    for privilege, allowed in (("DELETE", "t"), ("TRUNCATE", "f")):
        assert stack.sql(f"SELECT has_table_privilege('app', 'items', '{privilege}');") == allowed
    assert stack.sql("SELECT has_schema_privilege('app', 'public', 'CREATE');") == "f"
    if answers["queued_writes"]:
        users = stack.compose("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", "list_users")
        assert users.splitlines()[1:] == ["app\t[]"]
    servers = [name for name in ("db", "redis", "rabbitmq") if name in stack.compose("ps", "--services").split()]
    inspected = stack.run(["docker", "inspect", *stack.compose("ps", "--quiet", *servers).split()]).stdout
    assert "P@ss" not in inspected


def test_the_commands_of_the_original_example(stack: Stack, answers: dict[str, Any]) -> None:
    versions = stack.project / "alembic/versions"
    before = set(versions.glob("*.py"))
    for compose in sorted({ORIGINAL_COMPOSE, "docker compose"}) if is_fullest(answers) else ("docker compose",):
        stack.compose(
            *("run", "--rm", "api", "alembic", "revision", "--autogenerate", "-m", "create items table"),
            command=compose,
        )
        assert set(versions.glob("*.py")) == before, "models and migrations agree"
        stack.compose("run", "--rm", "api", "alembic", "upgrade", "head", command=compose)
        assert any(stack.sql("SELECT version_num FROM alembic_version;") in revision.name for revision in before)
    stack.compose("run", "--rm", "api", "alembic", "revision", "-m", "by hand")
    (written,) = set(versions.glob("*.py")) - before
    written.unlink()
    assert "No new upgrade operations detected" in stack.compose("run", "--rm", "api", "alembic", "check")
    stack.compose("up", "--build", "-d", command=ORIGINAL_COMPOSE)
    eventually(lambda: serves(stack))


def runs_in_the_stack(command: str) -> bool:
    """Whether a command of a rendered project is for a running stack."""
    return command.split(maxsplit=1)[0] in ("curl", "wrk", "hey") or command.startswith(
        ("docker compose run", "docker compose exec", "docker compose up -d --scale", "make dead-letters")
    )


def test_the_commands_of_the_documents(stack: Stack) -> None:
    commands = filter(
        runs_in_the_stack, map(str.strip, re.findall(r"```bash\n(.*?)```", documents(stack.project), re.DOTALL))
    )
    executed = 0
    for command in commands:
        if shutil.which(command.split()[0]) is None:
            continue
        local = re.sub(r"(127\.0\.0\.1|localhost):8000", str(stack.client.base_url.netloc.decode()), command)
        done = stack.run(["sh", "-c", local.replace("-d30s", "-d2s")])
        assert done.returncode == 0, (command, done.stdout, stack.logs("api")[-3000:])
        executed += 1
    assert executed >= 5


def test_migrations_can_be_undone_and_done_again(stack: Stack) -> None:
    stack.compose("run", "--rm", "api", "alembic", "downgrade", "base")
    assert "this release needs" in stack.client.get("/readyz").json()["detail"]
    stack.compose("run", "--rm", "api", "alembic", "upgrade", "head")
    assert stack.sql("SELECT count(*) FROM items;") == "0"
    create(stack)
    assert "No new upgrade operations detected" in stack.run_in_a_pipeline(UNDO_AND_REDO)
    assert stack.sql("SELECT count(*) FROM items;") == "0"
    # A prepared statement of before does not survive the new table, once for each connection.
    stack.compose("restart", "api")
    eventually(lambda: serves(stack))


def serves(stack: Stack) -> bool:
    try:
        return stack.client.get("/readyz").status_code == 200
    except httpx2.TransportError:
        return False


def test_more_workers_share_the_queue(stack: Stack, answers: dict[str, Any]) -> None:
    if not answers["queued_writes"]:
        pytest.skip("this variant has no queue")
    # As on a server: without the file that is for developers.
    server = "docker compose --file docker-compose.yml"
    stack.compose("up", "--detach", "--wait", "--scale", "worker=3", command=server)
    accepted = {create(stack).json()["id"] for _ in range(100)}

    def all_listed() -> bool:
        listed = stack.client.get("/items", params={"limit": 1000}).json()["items"]
        return accepted <= {item["id"] for item in listed}

    eventually(all_listed)
    log = stack.logs("worker")
    active = {line.split()[0] for line in log.splitlines() if "succeeded" in line}
    assert len({name.split("|")[0] for name in active}) >= 2, "more than one container stored items"


def test_the_logs_hold_no_error(stack: Stack) -> None:
    """Runs before the servers are stopped below."""
    services = [name for name in ("api", "worker", "migrate") if name in stack.compose("config", "--services").split()]
    noise = re.compile(r"error|critical|traceback|exception", re.IGNORECASE)
    text = stack.compose("logs", "--no-color", "--no-log-prefix", *services)
    lines = [json.loads(line) for line in text.splitlines() if line]
    wrong = [
        line for line in lines if "exception" in line or noise.search(line["level"]) or noise.search(line["message"])
    ]
    assert not [line for line in wrong if "Error while closing socket" not in line["message"]], wrong


def test_a_stopped_redis_does_not_stop_reads(stack: Stack, answers: dict[str, Any]) -> None:
    if not answers["caching"]:
        pytest.skip("this variant has no cache")
    stack.compose("stop", "redis")
    for _ in range(10):
        assert stack.client.get("/items").status_code == 200
    ready = stack.client.get("/readyz")
    assert (ready.status_code, "cache" in ready.json()["detail"]) == (503, True)
    stack.compose("start", "redis")
    eventually(lambda: stack.client.get("/items").headers["x-cache"] == "hit")


def test_a_stopped_broker_does_not_stop_writes(stack: Stack, answers: dict[str, Any]) -> None:
    if not answers["queued_writes"]:
        pytest.skip("this variant has no queue")
    stack.compose("stop", "rabbitmq")
    for _ in range(5):
        assert create(stack).status_code == 201
    stack.compose("start", "rabbitmq")
    eventually(lambda: create(stack).status_code == 202)


def test_a_stopped_database_is_told_and_comes_back(stack: Stack, answers: dict[str, Any]) -> None:
    stack.compose("stop", "db")
    response = stack.client.patch("/items/01890a5d-ac96-774b-bcce-b302099a8057", json={"name": "x"})
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "1"
    assert create(stack).status_code == (202 if answers["queued_writes"] else 503)
    stack.compose("start", "db")
    eventually(lambda: stack.client.get("/readyz").status_code == 200)
    assert create(stack).status_code in (201, 202)


def test_all_tests_of_the_variant_pass_on_real_servers(stack: Stack, answers: dict[str, Any]) -> None:
    """Once with servers that the command starts itself, which the other variants then do not repeat."""
    done = make(stack.project, "test-stack", check=False, PYTEST_ADDOPTS=options_for_tests(answers))
    assert done.returncode == 0, done.stdout[-8000:]
    assert re.search(r"Required test coverage of 95% reached", done.stdout)
    assert "Left out" not in done.stdout
