"""The questions: what is refused, what is kept secret, and every way to answer them."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import clean_environment
from tests.variants import ROOT, SLUG


def run_cookiecutter(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that users type."""
    return subprocess.run(
        [sys.executable, "-m", "cookiecutter", *arguments, "--output-dir", str(directory)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


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
        ("project_name", "\t", "project_name must be one line of printable text"),
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


@pytest.mark.parametrize("slug", ["shop", "shop-service", "shop_2", "s" * 50])
def test_a_good_slug_is_accepted(tmp_path: Path, slug: str) -> None:
    done = run_cookiecutter(tmp_path, str(ROOT), "--no-input", f"project_slug={slug}")
    assert_rendered(done, tmp_path / slug)


def test_the_answers_can_be_typed(tmp_path: Path) -> None:
    typed = "\n".join(["Shop", "", "gadget", "", "", "", "2", "1", "auto", "n", "y"]) + "\n"
    done = subprocess.run(
        [sys.executable, "-m", "cookiecutter", str(ROOT), "--output-dir", str(tmp_path)],
        input=typed,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    project = tmp_path / "shop"
    assert_rendered(done, project)
    assert "Gunicorn workers: 1 to 64, or auto" in done.stdout
    assert "Apache 2.0: like MIT, with a patent grant" in done.stdout
    assert "Apache License" in (project / "LICENSE").read_text()
    assert "WEB_CONCURRENCY=auto" in (project / ".env").read_text()
    assert not (project / "app/highload/reads/cache.py").exists()
    assert (project / "app/tasks.py").exists()
    assert (project / "app/routes/gadgets.py").exists()


def test_a_config_file_and_a_replay_give_the_same_project(tmp_path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load(Path(os.environ["COOKIECUTTER_CONFIG"]).read_text())
    config["default_context"] = {"project_name": "From a File", "caching": False, "workers": "7"}
    config_file = tmp_path / "config.yaml"
    config_file.write_text(yaml.safe_dump(config))
    arguments = [str(ROOT), "--config-file", str(config_file)]

    assert_rendered(run_cookiecutter(tmp_path / "first", *arguments, "--no-input"), tmp_path / "first/from-a-file")
    assert_rendered(run_cookiecutter(tmp_path / "second", *arguments, "--replay"), tmp_path / "second/from-a-file")
    for path in (tmp_path / "first").rglob("*"):
        again = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert path.is_dir() or path.name == ".env" or path.read_bytes() == again.read_bytes()
    assert "WEB_CONCURRENCY=7" in (tmp_path / "second/from-a-file/.env").read_text()


def test_secrets_are_random_private_and_nowhere_else(tmp_path: Path) -> None:
    secrets: list[str] = []
    for number in ("1", "2"):
        done = run_cookiecutter(tmp_path / number, str(ROOT), "--no-input")
        project = tmp_path / number / SLUG
        assert_rendered(done, project)
        assert (project / ".env").stat().st_mode & 0o777 == 0o600
        lines = dict(line.split("=", 1) for line in (project / ".env").read_text().splitlines() if "_PASSWORD=" in line)
        assert set(lines) == {f"{name}_PASSWORD" for name in ("POSTGRES", "MIGRATION", "DATABASE", "REDIS", "RABBITMQ")}
        secrets += lines.values()
        ignored = subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
        ignored = subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=project, check=False)
        assert ignored.returncode == 0
    assert len(set(secrets)) == 10
    assert min(map(len, secrets)) >= 32

    config = yaml.safe_load(Path(os.environ["COOKIECUTTER_CONFIG"]).read_text())
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
    compile((tmp_path / "shop/app/main.py").read_text(), "main.py", "exec")
    project = tomllib.loads((tmp_path / "shop/pyproject.toml").read_text())["project"]
    assert project["description"] == names["description"]
    assert project["authors"] == [{"name": names["author_name"]}]
    assert names["author_name"] in (tmp_path / "shop/LICENSE").read_text()
