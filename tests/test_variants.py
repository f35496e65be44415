"""Every variant: its files are valid, its tests pass, it boots as in production and serves."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.conftest import PATIENCE, environment_of, free_port, install, make, options_for_tests
from tests.test_mutations import copy_of
from tests.variants import ONLY, answers_to, core_variants, documents, is_fullest, name_of, render, variants_to_test

TOOLS = Path(sys.executable).parent
TOOLS_OF_MAKE = [f"PYTHON={sys.executable}", f"UV={TOOLS / 'uv'}"]
ORIGINAL_COMMAND = "gunicorn app.main:app -k uvicorn.workers.UvicornWorker --bind 0.0.0.0:8000 --workers 4 --threads 2"


@contextmanager
def serving(project: Path, command: str, log: Path, **settings: Any) -> Iterator[httpx2.Client]:
    """Run a command that serves on a port of this machine, wait for it, and stop it at the end."""
    port = free_port()
    arguments = shlex.split(command.replace("0.0.0.0:8000", f"127.0.0.1:{port}").replace("PORT", str(port)))
    arguments[0] = str(project / ".venv/bin" / arguments[0])
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, cwd=project, env=environment_of(**settings), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
                wait_until_it_serves(client, process, log)
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            # Uvicorn ends by the signal that it was sent.
            assert process.wait(40) in (0, -signal.SIGTERM), log.read_text()


def wait_until_it_serves(client: httpx2.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            client.get("/livez")
        except httpx2.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return


def drive(client: httpx2.Client) -> None:
    """Create, list, fetch, change and delete an item."""
    created = client.post("/items", json={"name": "x", "description": "y"})
    assert created.status_code == 201, created.text
    item = created.json()
    location = created.headers["location"]
    assert client.get("/items").json()["items"][0] == item
    assert client.get(location).json() == item
    assert client.patch(location, json={"name": "z"}).json() == item | {"name": "z"}
    assert client.get("/items").json()["items"][0]["name"] == "z"
    assert client.delete(location).status_code == 204
    assert client.get(location).status_code == 404
    assert client.get("/readyz").json() == {"status": "ok"}
    assert client.get("/docs").status_code == 200
    refused = client.post("/items", json={"name": ""})
    assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


def assert_quiet(log: Path) -> None:
    # Two loggers have a name that says error.
    lines = [re.sub(r" INFO (gunicorn|uvicorn)\.error: ", " INFO ", line) for line in log.read_text().splitlines()]
    assert not [line for line in lines if re.search(r"error|warning|traceback", line, re.IGNORECASE)]


def test_the_tests_of_the_variant_pass(project: Path, variant: dict[str, bool]) -> None:
    if not ONLY and not is_fullest(variant):
        pytest.skip("tests/test_stack.py runs them, on real servers")
    done = make(project, "test", PYTEST_ADDOPTS=options_for_tests(variant))
    assert " passed" in done.stdout
    assert " failed" not in done.stdout
    assert re.search(r"Left out: \d+ tests that need servers", done.stdout)
    assert ("skipped" in done.stdout) or not (variant["caching"] or variant["queued_writes"])


@pytest.mark.parametrize(
    ("command", "workers"), [("gunicorn app.main:app --bind 0.0.0.0:8000", 2), (ORIGINAL_COMMAND, 4)]
)
def test_the_variant_boots_and_serves(project: Path, tmp_path: Path, command: str, workers: int) -> None:
    log = boot(project, tmp_path, command)
    assert log.read_text().count("Booting worker") == workers
    if command != ORIGINAL_COMMAND:
        assert_quiet(log)


@pytest.mark.skipif(bool(ONLY), reason="this run is for one variant, which boots above")
@pytest.mark.parametrize("answers", [one for one in core_variants() if one not in variants_to_test()], ids=name_of)
def test_each_other_variant_boots_and_serves(
    answers: dict[str, bool], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project = install(render(tmp_path / "project", **answers), tmp_path_factory)
    assert_quiet(boot(project, tmp_path, "gunicorn app.main:app --bind 0.0.0.0:8000"))


def boot(project: Path, directory: Path, command: str) -> Path:
    """Migrate a new database, serve by a command what users ask for, and return the log."""
    log = directory / "gunicorn.log"
    settings = {"DATABASE_URL": f"sqlite+aiosqlite:///{directory / 'items.db'}", "WEB_CONCURRENCY": 2}
    subprocess.run(
        [str(project / ".venv/bin/alembic"), "upgrade", "head"], cwd=project, env=environment_of(**settings), check=True
    )
    with serving(project, command, log, **settings) as client:
        drive(client)
    return log


def test_the_service_keeps_to_its_openapi_document(project: Path, tmp_path: Path) -> None:
    assert_keeps_to_its_openapi_document(project, tmp_path)


MAKE_A_KEY = ".venv/bin/python -m app.keys --name billing --scopes read,write >> api-keys"


@pytest.mark.slow
def test_a_guarded_service_keeps_to_its_openapi_document(project: Path, tmp_path: Path) -> None:
    """With API keys: no path without one, and every refusal is documented."""
    assert MAKE_A_KEY in documents(project)
    keys = tmp_path / "api-keys"
    command = MAKE_A_KEY.replace("api-keys", shlex.quote(str(keys)))
    done = subprocess.run(
        ["sh", "-c", command], cwd=project, env=environment_of(), capture_output=True, text=True, check=True
    )
    (key,) = re.findall(r"^\w+_[0-9a-f]{64}$", done.stderr, re.MULTILINE)
    header = f"Authorization: Bearer {key}"
    assert_keeps_to_its_openapi_document(project, tmp_path, "--header", header, examples=15, API_KEYS_FILE=keys)


def assert_keeps_to_its_openapi_document(
    project: Path, tmp_path: Path, *options: str, examples: int = 60, **settings: Any
) -> None:
    """schemathesis with all checks: no 5xx, no undocumented status, no answer that its schema does not allow."""
    settings |= {"DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'items.db'}", "WEB_CONCURRENCY": 1}
    subprocess.run(
        [str(project / ".venv/bin/alembic"), "upgrade", "head"], cwd=project, env=environment_of(**settings), check=True
    )
    with serving(project, "gunicorn app.main:app --bind 0.0.0.0:8000", tmp_path / "log", **settings) as client:
        options = ("--checks", "all", "--max-examples", str(examples), "--no-color", *options)
        done = subprocess.run(
            [
                str(TOOLS / "schemathesis"),
                "run",
                f"{client.base_url}/openapi.json".replace("//open", "/open"),
                *options,
            ],
            cwd=tmp_path,
            env=environment_of(SCHEMATHESIS_HOOKS="schemathesis_hooks", PYTHONPATH=Path(__file__).parent),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert "No issues found" in done.stdout


def refusal_of_gunicorn(project: Path, *options: str, **settings: Any) -> list[str]:
    """Start what does not start, and return the lines that say why."""
    done = subprocess.run(
        [project / ".venv/bin/gunicorn", "app.main:app", *options],
        cwd=project,
        env=environment_of(**settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode != 0
    return done.stderr.splitlines()


def test_production_refuses_embedded_parts(project: Path) -> None:
    sentence = "The service does not start: DATABASE_URL must name a PostgreSQL server when ENVIRONMENT is production."
    assert refusal_of_gunicorn(project, ENVIRONMENT="production") == [sentence]


def test_the_image_understands_automatic_workers(project: Path) -> None:
    dockerfile = (project / "Dockerfile").read_text(encoding="utf-8")
    entry_point: list[str] = json.loads(re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE)[0])
    command = [*entry_point, str(project / ".venv/bin/gunicorn"), "--check-config", "app.main:app"]
    for workers, status in (("auto", 0), ("2", 0), ("0", 1)):
        environment = environment_of(WEB_CONCURRENCY=workers)
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr


@pytest.mark.parametrize("python_version", answers_to("python_version"))
@pytest.mark.parametrize("workers", answers_to("workers"))
def test_the_containers_are_valid(variant: dict[str, bool], python_version: str, workers: str, tmp_path: Path) -> None:
    project = render(tmp_path, python_version=python_version, workers=workers, **variant)
    schema = [str(TOOLS / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    files = [*project.glob("docker-compose*.yml"), "tests/docker-compose.stack.yml"]
    dockerfiles = [name for name in ("Dockerfile", "observe/Dockerfile") if (project / name).exists()]
    for command in ([*schema, *map(str, files)], [str(TOOLS / "hadolint"), *dockerfiles]):
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


class Made(NamedTuple):
    """A service that make started."""

    process: subprocess.Popen[bytes]
    log: Path
    client: httpx2.Client

    def press_ctrl_c(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for(self, text: str, count: int = 1) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.log.read_text().count(text) < count:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def wait_for_answer(self, path: str, answer: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            # A process that ends may close a connection under a request.
            with suppress(httpx2.TransportError):
                if self.client.get(path).json() == answer:
                    return
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def send(self, request: str) -> socket.socket:
        connection = socket.create_connection((self.client.base_url.host, self.client.base_url.port), PATIENCE)
        connection.sendall(request.encode())
        return connection


@contextmanager
def made(directory: Path, log: Path, *arguments: str) -> Iterator[Made]:
    """Run make until it serves on a free port, and press Ctrl-C at the end."""
    port = free_port()
    with log.open("wb") as output, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        process = subprocess.Popen(
            ["make", *arguments, f"PORT={port}"],
            cwd=directory,
            env=environment_of(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            service = Made(process, log, client)
            service.wait_for("Application startup complete")
            yield service
        finally:
            if process.poll() is None:
                service.press_ctrl_c()
                process.wait(40)


@contextmanager
def made_to_serve(directory: Path, log: Path, *arguments: str) -> Iterator[httpx2.Client]:
    with made(directory, log, *arguments) as service:
        yield service.client


def test_a_fresh_checkout_runs_with_one_command(project: Path, variant: dict[str, bool], tmp_path: Path) -> None:
    """`make run` makes its .venv, migrates and serves; the rest of the tests use what is installed already."""
    if not is_fullest(variant):
        pytest.skip("the Makefile is the same in every variant")
    fresh = tmp_path / project.name
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    subprocess.run(["git", "add", "--all"], cwd=project, check=True)
    subprocess.run(["git", "checkout-index", "--all", f"--prefix={fresh}/"], cwd=project, check=True)
    assert not (fresh / ".env").exists()
    with made_to_serve(fresh, tmp_path / "run.log", "run", *TOOLS_OF_MAKE) as client:
        drive(client)
    assert (fresh / ".env").stat().st_mode & 0o777 == 0o600
    assert "PASSWORD=\n" not in (fresh / ".env").read_text()


@pytest.fixture
def checkout(project: Path, variant: dict[str, bool], tmp_path: Path) -> Path:
    """A copy of the project that a test may edit."""
    if variant["caching"] or variant["queued_writes"]:
        pytest.skip("the Makefile and the servers are the same in every variant")
    return copy_of(project, tmp_path)


ROUTES = """

@app.get("/new")
async def new() -> str:
    return "new"


@app.get("/hanging")
def hanging() -> None:
    import threading
    print("It hangs", flush=True)
    threading.Event().wait()


@app.get("/broken")
async def broken() -> None:
    raise RuntimeError("a mistake")


from app.highload.reads.shared import shared


@app.get("/broken-shared")
@shared()
async def broken_shared() -> None:
    raise RuntimeError("another mistake")
"""


def test_make_dev_serves_what_was_written(checkout: Path, tmp_path: Path) -> None:
    module = checkout / "app/main.py"
    source = module.read_text()
    with made(checkout, tmp_path / "dev.log", "dev", *TOOLS_OF_MAKE) as service:
        drive(service.client)
        service.wait_for('"GET /items HTTP/1.1" 200')
        assert service.client.get("/new").status_code == 404

        module.write_text(source + ROUTES)
        service.wait_for_answer("/new", "new")
        for path in ("/broken", "/broken-shared"):
            # Uvicorn closes the connection after it.
            answer = service.client.get(path, headers={"connection": "close"})
            assert answer.json()["title"] == "Internal Server Error"
        service.wait_for("RuntimeError: another mistake")
        frames = re.findall(r'^  File "(.*)", line \d+, in (\w+)$', service.log.read_text(), re.MULTILINE)
        assert frames == [(str(module), "broken"), (str(module), "broken_shared")]

        # Neither a request that runs nor a connection that is open holds up the next start.
        with service.send("GET /hanging HTTP/1.1\r\nhost: x\r\n\r\n"), service.send(""):
            service.wait_for("It hangs")
            module.write_text((source + ROUTES).replace('return "new"', 'return "newer"'))
            service.wait_for_answer("/new", "newer")

        module.write_text(source + ROUTES + "def (\n")
        service.wait_for("SyntaxError: ")
        # A client that comes now waits for the next start.
        with service.send("GET /new HTTP/1.1\r\nhost: x\r\n\r\n") as connection:
            module.write_text(source + "import app.missing as missing\n")
            service.wait_for("ModuleNotFoundError: ")
            module.write_text(source + ROUTES)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        service.client.get("/livez")


LINES_OF_A_STOP = re.compile(
    r"""(.*\bINFO\W+([\w.]+:[ ])?)?(
        Handling[ ]signal:[ ]int
        | Shutting[ ]down(:[ ]Master)?
        | Waiting[ ]for[ ](connections[ ]to[ ]close|application[ ]shutdown)\..*
        | 127\.0\.0\.1:\d+[ ]-[ ]"POST[ ]/items[ ]HTTP/1\.1"[ ]201[ ]request_id=\w+
        | Application[ ]shutdown[ ]complete\.
        | (Finished[ ]server|Stopping[ ]reloader)[ ]process[ ]\[\d+\]
    )""",
    re.VERBOSE,
)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("command", [["run"], ["run", "WEB_CONCURRENCY=2"], ["dev"]], ids=" ".join)
def test_ctrl_c_prints_no_error(checkout: Path, tmp_path: Path, command: list[str], times: int) -> None:
    """While a request runs, and with a connection that is open."""
    body = b'{"name":"x","description":"y"}'
    fields = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nexpect: 100-continue"
    with made(checkout, tmp_path / "log", *command, *TOOLS_OF_MAKE) as service:
        workers = 2 if "WEB_CONCURRENCY=2" in command else 1
        service.wait_for("Application startup complete", workers)
        service.client.get("/livez")
        with service.send(f"POST /items HTTP/1.1\r\n{fields}\r\n\r\n") as connection:
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
            before = service.log.stat().st_size
            service.press_ctrl_c()
            if times == 2:
                service.wait_for("Shutting down", workers)
                service.press_ctrl_c()
            else:
                connection.sendall(body)
            service.process.wait(40)
            answered = b""
            with suppress(ConnectionError):
                answered = connection.recv(1000)
    printed = service.log.read_text()[before:].splitlines()
    assert [line for line in printed if not LINES_OF_A_STOP.fullmatch(line)] == []
    # `make dev` lets nobody wait for long.
    assert answered.startswith(b"HTTP/1.1 201 ") == (times == 1) or command == ["dev"]


@pytest.mark.slow
def test_gunicorn_alone_may_be_interrupted(checkout: Path, tmp_path: Path) -> None:
    """Gunicorn then sends SIGQUIT to its workers, and kills after the graceful timeout those that do not end."""
    log = tmp_path / "gunicorn.log"
    with made(checkout, log, "run", *TOOLS_OF_MAKE) as service:
        (number,) = re.findall(r"Listening at: .* \((\d+)\)", log.read_text())
        os.kill(int(number), signal.SIGINT)
        assert service.process.wait(40) == 0, log.read_text()
    assert "Application shutdown complete" in log.read_text()
    assert_quiet(log)


def test_a_reload_that_gunicorn_cannot_do_is_refused(project: Path) -> None:
    options = ["--reload", "--bind", f"127.0.0.1:{free_port()}"]
    sentence = "Gunicorn cannot end a Uvicorn worker when the code changes: leave out --reload, and run make dev."
    assert refusal_of_gunicorn(project, *options, WEB_CONCURRENCY=1)[1:] == [sentence]


@pytest.mark.parametrize(
    "command", ["gunicorn app.main:app --bind 127.0.0.1:PORT", "make run PORT=PORT", "make dev PORT=PORT"]
)
def test_a_port_in_use_is_named(project: Path, command: str) -> None:
    """A sentence says what to do, and nothing else is said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        arguments = shlex.split(command.replace("=PORT", f"={port}").replace(":PORT", f":{port}"))
        arguments += TOOLS_OF_MAKE if arguments[0] == "make" else []
        done = subprocess.run(
            arguments,
            cwd=project,
            env=environment_of(PATH=f"{project / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    assert done.returncode != 0
    ours = ("20", "make: ***")
    sentence = "Port {} is in use: stop the other process, or serve on another port, as with make {} PORT={}."
    target = "dev" if " dev " in command else "run"
    told = [line for line in done.stderr.splitlines() if not line.startswith(ours)]
    assert told == [sentence.format(port, target, port + 1)]
    assert "Connection in use" not in done.stderr
