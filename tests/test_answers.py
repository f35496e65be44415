"""The questions: what is refused, what is kept secret, and every way to answer them."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commits import commit_all
from tests.conftest import clean_environment
from tests.variants import QUESTIONS, ROOT, SLUG, render

COOKIECUTTER = (sys.executable, "-m", "cookiecutter")
# Names of people: an ideographic space, one that breaks no line, a joiner that parts, one that joins, two scripts.
NAMES = ["山田　太郎", "Zoë\u00a0Petit", "علی\u200cرضا", "👩\u200d💻 Lab", "Οδός Васа"]  # noqa: RUF001


def run_cookiecutter(
    directory: Path, *arguments: str, command: Sequence[str] = COOKIECUTTER, typed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command that users type."""
    return subprocess.run(
        [*command, *arguments, "--output-dir", str(directory)],
        env=clean_environment() | {"PYTHONIOENCODING": "utf-8"},
        input=typed,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def files_in(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return the mode and the content of every file but the secrets."""
    files = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    return {name: (path.stat().st_mode, path.read_bytes()) for name, path in files.items() if path.name != ".env"}


def assert_rendered(done: subprocess.CompletedProcess[str], project: Path) -> None:
    assert done.returncode == 0, done.stderr
    assert (project / "app/main.py").exists()


@pytest.mark.parametrize(
    ("question", "answer", "sentence"),
    [
        *(
            ("project_slug", slug, f"project_slug '{slug}' is no valid name: enter lower-case letters")
            for slug in ("Shop", "1shop", "my shop", "shop-", "a--b", "../shop", "shöp", "s" * 51, "-", "shop.py")
        ),
        ("project_slug", "app", "is a name of this template: enter another one, for example app-service."),
        ("project_slug", "test", "is a name of this template: enter another one"),
        ("project_slug", "tests", "is a name of this template: enter another one"),
        ("project_slug", "json", "is a name of the standard library: enter another one, for example json-service."),
        ("project_slug", "concurrent", "is a name of the standard library"),
        ("project_slug", "fastapi", "is a name of a dependency: enter another one, for example fastapi-service."),
        ("project_slug", "pydantic_core", "is a name of a dependency"),
        ("project_slug", "aio-pika", "is a name of a dependency"),
        *(
            (
                "workers",
                workers,
                f"workers '{workers}' is no number of workers: enter a whole number from 1 to 64, or auto.",
            )
            for workers in ("0", "65", "-1", "2.5", "many", "AUTO", "1e1", "04", "٤")
        ),
        *(
            ("resource", name, f"resource '{name}' is no valid name: enter lower-case letters, digits, and single")
            for name in ("Order", "x", "2nd", "purchase order", "purchase-order", "a__b", "_a", "café", "x" * 31)
        ),
        *(
            ("resource", name, f"resource '{name}' is a word of Python: enter another one, for example shop_{name}.")
            for name in ("class", "match", "property", "filter", "warning", "value_error")
        ),
        ("resource_plural", "order", "resource_plural 'order' is a word of SQL: enter another one, for example shop_o"),
        ("resource_plural", "item", "resource_plural 'item' must differ from resource: enter another one, for example"),
        ("resource_plural", "docs", "resource_plural 'docs' is a route of this template: enter another one, for exam"),
        *(
            ("project_name", name, "project_name must be one line of printable text: enter at least one visible")
            for name in ("\t", "\u3000", "\u200d", "a\x1bb", "a\u2028b", "a\u202eb", "a\u2066b", "a\u200bb", "a\udc80b")
        ),
        ("description", "two\nlines", "description must be one line of printable text"),
        ("author_name", "  ", "author_name must be one line of printable text"),
    ],
)
def test_a_bad_answer_is_refused_with_a_sentence(tmp_path: Path, question: str, answer: str, sentence: str) -> None:
    answers = {"project_slug": "shop-service", question: answer}
    done = run_cookiecutter(tmp_path, str(ROOT), "--no-input", *(f"{name}={value}" for name, value in answers.items()))
    assert done.returncode == 1
    assert sentence in done.stderr.splitlines()[0]
    assert not list(tmp_path.iterdir()), "nothing is left on disk"


def test_an_answer_that_is_only_the_word_for_the_resource_is_refused(tmp_path: Path) -> None:
    done = run_cookiecutter(tmp_path, str(ROOT), "--no-input", "project_slug=items", "resource=part")
    sentence = "project_slug 'items' is what this template calls its resource: enter another one, for example items-s"
    assert sentence in done.stderr.splitlines()[0]
    assert_rendered(run_cookiecutter(tmp_path, str(ROOT), "--no-input", "project_slug=items"), tmp_path / "items")


def test_all_bad_answers_are_refused_at_once(tmp_path: Path) -> None:
    answers = ("project_name=two\nlines", "project_slug=json", "resource=Order", "workers=many")
    done = run_cookiecutter(tmp_path, str(ROOT), "--no-input", *answers)
    # The plural and the author hold those answers, and are not named beside them.
    assert refused(done.stderr) == ["project_name", "project_slug", "resource", "workers"], done.stderr
    done = run_cookiecutter(tmp_path, str(ROOT), "--no-input", "resource=Order", "resource_plural=docs")
    assert refused(done.stderr) == ["resource", "resource_plural"], done.stderr


def refused(errors: str) -> list[str]:
    """Return the questions at the beginning of a line."""
    return [name for line in errors.splitlines() if (name := line.partition(" ")[0]) in QUESTIONS]


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("12 Monkeys", "service-12-monkeys"),
        ("!", "service"),
        ("Ärger & Söhne", "arger-sohne"),
        ("a-" * 30, "a-" * 24 + "a"),
        ("1" * 60, "service-" + "1" * 42),
    ],
)
def test_the_slug_of_any_name_is_good(tmp_path: Path, name: str, slug: str) -> None:
    assert_rendered(run_cookiecutter(tmp_path, str(ROOT), "--no-input", f"project_name={name}"), tmp_path / slug)


def test_an_empty_slug_is_refused_where_cookiecutter_lets_it_pass(tmp_path: Path) -> None:
    arguments = (str(ROOT), "--no-input", "project_slug=")
    assert "directory already exists" in run_cookiecutter(tmp_path, *arguments).stdout
    (tmp_path / "mine").touch()
    done = run_cookiecutter(tmp_path, *arguments, "--overwrite-if-exists")
    assert done.stderr.startswith("project_slug '' is no valid name: enter lower-case letters")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("slug", ["shop", "shop-service", "shop_2", "s" * 50])
def test_a_good_slug_is_accepted(tmp_path: Path, slug: str) -> None:
    done = run_cookiecutter(tmp_path, str(ROOT), "--no-input", f"project_slug={slug}")
    assert_rendered(done, tmp_path / slug)


def test_the_answers_can_be_typed(tmp_path: Path) -> None:
    typed = "\n".join(["Shop", "", "gadget", "", "", "", "2", "1", "auto", "n", "y", "y", "2", "2"]) + "\n"
    done = run_cookiecutter(tmp_path, str(ROOT), typed=typed)
    project = tmp_path / "shop-service"
    assert_rendered(done, project)
    assert "Gunicorn workers: 1 to 64, or auto" in done.stdout
    assert "Apache 2.0: like MIT, with a patent grant" in done.stdout
    assert "Apache License" in (project / "LICENSE").read_text(encoding="utf-8")
    assert "WEB_CONCURRENCY=auto" in (project / ".env").read_text(encoding="utf-8")
    assert not (project / "app/highload/reads/cache.py").exists()
    assert (project / "app/tasks.py").exists()
    assert (project / "app/routes/gadgets.py").exists()
    assert (project / ".gitlab-ci.yml").exists()
    assert (project / "kubernetes/base/worker.yaml").exists()
    assert re.search(r"^GRAFANA_PASSWORD=.{32}", (project / ".env").read_text(encoding="utf-8"), re.MULTILINE)


def test_a_config_file_and_a_replay_give_the_same_project(tmp_path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(Path(os.environ["COOKIECUTTER_CONFIG"]).read_text(encoding="utf-8"))
    config["default_context"] = {"project_name": "From a File", "caching": False, "workers": "7"}
    config_file = tmp_path / "config.yaml"
    config_file.write_text(yaml.safe_dump(config))
    arguments = [str(ROOT), "--config-file", str(config_file)]

    assert_rendered(run_cookiecutter(tmp_path / "first", *arguments, "--no-input"), tmp_path / "first/from-a-file")
    assert_rendered(run_cookiecutter(tmp_path / "second", *arguments, "--replay"), tmp_path / "second/from-a-file")
    assert files_in(tmp_path / "first") == files_in(tmp_path / "second")
    assert "WEB_CONCURRENCY=7" in (tmp_path / "second/from-a-file/.env").read_text(encoding="utf-8")


def test_secrets_are_random_private_and_nowhere_else(tmp_path: Path) -> None:
    secrets: list[str] = []
    for number in ("1", "2"):
        done = run_cookiecutter(tmp_path / number, str(ROOT), "--no-input")
        project = tmp_path / number / SLUG
        assert_rendered(done, project)
        assert os.name == "nt" or (project / ".env").stat().st_mode & 0o777 == 0o600
        lines = dict(
            line.split("=", 1)
            for line in (project / ".env").read_text(encoding="utf-8").splitlines()
            if "_PASSWORD=" in line
        )
        of_parts = ("POSTGRES", "MIGRATION", "DATABASE", "REDIS", "RABBITMQ", "REPLICATION", "RABBITMQ_CLUSTER")
        assert set(lines) == {f"{name}_PASSWORD" for name in of_parts}
        secrets += lines.values()
        subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
        ignored = subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=project, check=False)
        assert ignored.returncode == 0
    assert len(set(secrets)) == 14
    assert min(map(len, secrets)) >= 32

    config = yaml.safe_load(Path(os.environ["COOKIECUTTER_CONFIG"]).read_text(encoding="utf-8"))
    elsewhere = [*Path(config["replay_dir"]).rglob("*.json"), *tmp_path.rglob("*")]
    for path in elsewhere:
        if path.is_file() and path.name != ".env" and ".git" not in path.parts:
            text = path.read_text(encoding="utf-8")
            assert not any(secret in text for secret in secrets), path


def test_the_next_two_commands_are_printed(tmp_path: Path) -> None:
    done = run_cookiecutter(tmp_path, str(ROOT), "--no-input", "project_slug=shop")
    assert "    cd shop\n    make run\n" in done.stdout


def test_quotes_and_backslashes_are_only_text(tmp_path: Path) -> None:
    names = {
        "project_name": r'The "Best" \ Shop',
        "description": r"""It's a "shop" \n, {not} % a $template""",
        "author_name": 'O\'Reilly "&" <Söhne>',
    }
    done = run_cookiecutter(
        tmp_path, str(ROOT), "--no-input", "project_slug=shop", *(f"{name}={value}" for name, value in names.items())
    )
    assert_rendered(done, tmp_path / "shop")
    compile((tmp_path / "shop/app/main.py").read_text(encoding="utf-8"), "main.py", "exec")
    project = tomllib.loads((tmp_path / "shop/pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["description"] == names["description"]
    assert project["authors"] == [{"name": names["author_name"]}]
    assert names["author_name"] in (tmp_path / "shop/LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_people_are_accepted(tmp_path: Path, name: str) -> None:
    project = render(tmp_path, project_slug="shop", project_name=name, author_name=name, description=name)
    answers = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (answers["description"], answers["authors"]) == (name, [{"name": name}])
    assert f" {name}\n" in (project / "LICENSE").read_text(encoding="utf-8")
    for command in (["check"], ["format", "--check"]):
        arguments = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        done = subprocess.run(arguments, cwd=project, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stdout


def test_the_hook_knows_every_yes_or_no() -> None:
    features = tuple(name for name, default in QUESTIONS.items() if isinstance(default, bool))
    source = (ROOT / "hooks/pre_gen_project.py").read_text(encoding="utf-8")
    assert f"FEATURES = {json.dumps(features).replace('[', '(').replace(']', ')')}\n" in source


@pytest.fixture(scope="session", params=["2.5.0", "2.6.0", "2.7.0"])
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A version of Cookiecutter, and the command that runs it."""
    environment = tmp_path_factory.mktemp("cookiecutter") / request.param
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", python, f"cookiecutter=={request.param}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode != 0:
        pytest.skip(f"Cookiecutter {request.param} cannot be installed: {installed.stderr}")
    return request.param, [str(python), "-W", "ignore", "-m", "cookiecutter"]


def test_an_old_cookiecutter_renders_right_or_is_refused(tmp_path: Path, released: tuple[str, list[str]]) -> None:
    version, command = released
    here = render(tmp_path / "here", caching=False)
    done = run_cookiecutter(tmp_path / "no", str(ROOT), "--no-input", "caching=no", command=command)
    if version == "2.7.0":
        assert done.returncode == 0, done.stderr
        assert files_in(tmp_path / "no" / SLUG) == files_in(here)
        return
    assert done.returncode == 1
    assert "Cookiecutter 2.7 or newer" in done.stderr.splitlines()[0]
    assert not list((tmp_path / "no").iterdir())
    typed = "\n" * 9 + "n\ny\nn\n\n\n"
    done = run_cookiecutter(tmp_path / "typed", str(ROOT), command=command, typed=typed)
    if version == "2.6.0":
        # It understands what is typed.
        assert files_in(tmp_path / "typed" / SLUG) == files_in(here)
    else:
        assert "This template needs Cookiecutter 2.7 or newer, on Python 3.10 or newer: " in done.stderr


def test_the_same_answers_give_the_same_files(tmp_path: Path) -> None:
    answers = {"resource": "order", "caching": False}
    assert files_in(render(tmp_path / "first", **answers)) == files_in(render(tmp_path / "second", **answers))


def test_a_project_that_is_rendered_again_loses_no_file_of_its_owner(tmp_path: Path) -> None:
    project = render(tmp_path, resource="order")
    (project / ".env").chmod(0o400)
    secrets = (project / ".env").read_bytes()
    commit_all(project)
    # A service that runs meanwhile writes into its database.
    running = project / "orders.db"
    running.write_bytes(b"SQLite\x00\xff")
    later = time.time() + 600
    os.utime(running, (later, later))
    again = ("--no-input", "--overwrite-if-exists", "--skip-if-file-exists", "resource=order", "caching=no")
    assert_rendered(run_cookiecutter(tmp_path, str(ROOT), f"project_slug={project.name}", *again), project)
    assert running.read_bytes() == b"SQLite\x00\xff"
    assert (project / ".env").read_bytes() == secrets
    # main.py, which imports it, was there before and is kept as well.
    assert (project / "app/highload/reads/cache.py").exists()


def edit(project: Path) -> str:
    commit_all(project)
    (project / "README.md").write_text("mine\n", encoding="utf-8")
    return "README.md"


def add_where_a_feature_would_be(project: Path) -> str:
    commit_all(project)
    (project / "app/highload/reads/cache.py").write_text("mine\n", encoding="utf-8")
    return "app/highload/reads/cache.py"


def replace_what_git_ignores(project: Path) -> str:
    (project / ".gitignore").write_text("docker-compose.override.yml\n.env\n", encoding="utf-8")
    commit_all(project)
    (project / "docker-compose.override.yml").write_text("mine\n", encoding="utf-8")
    return "docker-compose.override.yml"


def use_no_git(project: Path) -> str:
    (project / "app/main.py").write_text("mine\n", encoding="utf-8")
    return ".devcontainer"


def commit_nothing(project: Path) -> str:
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    return use_no_git(project)


def be_ignored_by_another_repository(project: Path) -> str:
    (project.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    commit_all(project.parent)
    use_no_git(project)
    return ".devcontainer/Dockerfile"


@pytest.mark.parametrize(
    "prepare",
    [
        edit,
        add_where_a_feature_would_be,
        replace_what_git_ignores,
        use_no_git,
        commit_nothing,
        be_ignored_by_another_repository,
    ],
)
def test_what_git_does_not_keep_is_not_rendered_over(tmp_path: Path, prepare: Callable[[Path], str]) -> None:
    project = render(tmp_path, caching=False)
    unkept = prepare(project)
    before = contents(project)
    done = run_cookiecutter(tmp_path, str(ROOT), "--no-input", "--overwrite-if-exists", "caching=no")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{SLUG} is there already, and Git does not keep {unkept}: commit everything")
    assert contents(project) == before


def contents(project: Path) -> dict[Path, bytes]:
    """Return what is in every file of a project, but for those of Git, which notes what it has looked at."""
    return {path: path.read_bytes() for path in project.rglob("*") if path.is_file() and ".git" not in path.parts}


def test_what_git_keeps_and_what_tools_write_may_be_rendered_over(tmp_path: Path) -> None:
    project = render(tmp_path)
    (project / "README.md").write_text("mine\n", encoding="utf-8")
    (project / "mine.py").write_text("mine\n", encoding="utf-8")
    commit_all(project)
    for name in (".venv/bin/python", "app/__pycache__/main.pyc", "items.db", ".idea/workspace.xml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("a tool's\n", encoding="utf-8")
    (project / "LICENSE").unlink()
    before = contents(project)
    assert_rendered(run_cookiecutter(tmp_path, str(ROOT), "--no-input", "--overwrite-if-exists"), project)
    assert (project / "LICENSE").exists()
    assert contents(project)[project / "README.md"] != b"mine\n"
    subprocess.run(["git", "checkout", "--quiet", "README.md"], cwd=project, check=True)
    assert contents(project).items() >= before.items()


def test_a_filesystem_that_refuses_owners_is_no_reason_to_fail(tmp_path: Path) -> None:
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("only root can be refused, and setpriv takes the right away")
    # Without this right the kernel answers as such a filesystem does.
    command = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown", *COOKIECUTTER]
    assert_rendered(run_cookiecutter(tmp_path, str(ROOT), "--no-input", command=command), tmp_path / SLUG)
    assert (tmp_path / SLUG / "alembic/versions").stat().st_uid == 0
    assert (tmp_path / SLUG / ".env").exists()
