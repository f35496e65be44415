"""What people and bots change the code with, of the template and of what it renders: each file is valid and true."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from editorconfig import get_properties

from tests.commits import HOOKS, Repository
from tests.conftest import clean_environment
from tests.test_ci import COMPOSE, SCHEMA, Mistake, assert_each_is_refused, lint
from tests.variants import ROOT, TEMPLATE, core_variants, name_of, render, variants_to_test

FORMS = f"{SCHEMA} vendor.github-issue-forms"
CHOOSER = f"{SCHEMA} vendor.github-issue-config"
RENOVATE = f"{SCHEMA} vendor.renovate"
HADOLINT = "hadolint"

BUG, IDEA, CONFIG = (f".github/ISSUE_TEMPLATE/{name}.yml" for name in ("bug", "idea", "config"))
CONTAINER, DOCKERFILE, BESIDE = (
    f".devcontainer/{name}" for name in ("devcontainer.json", "Dockerfile", "docker-compose.yml")
)

# What each tool reads: of the template, of what is rendered, and in the template as it lies there.
READ: dict[str, tuple[list[str], list[str]]] = {
    FORMS: ([BUG, IDEA], [BUG]),
    CHOOSER: ([CONFIG], []),
    RENOVATE: (["renovate.json"], ["renovate.json"]),
    COMPOSE: ([], [BESIDE]),
    HADOLINT: ([], [DOCKERFILE]),
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with most files."""
    return render(tmp_path_factory.mktemp("rendered"), deployment="kubernetes", **core_variants()[0])


@pytest.fixture(params=["template", "rendered"])
def repository(request: pytest.FixtureRequest, rendered: Path) -> Path:
    return ROOT if request.param == "template" else rendered


@pytest.mark.parametrize("tool", READ)
def test_no_tool_finds_a_fault(tool: str, rendered: Path) -> None:
    own, theirs = READ[tool]
    files = [ROOT / path for path in own] + [place / path for place in (rendered, TEMPLATE) for path in theirs]
    done = lint(tool, *files)
    assert done.returncode == 0, done.stdout


MISTAKES = [
    Mistake(FORMS, BUG, "type: textarea", "type: text", "text"),
    Mistake(FORMS, BUG, "required: true", "required: yes please", "required"),
    Mistake(FORMS, BUG, "body:", "bodies:", "body"),
    Mistake(CHOOSER, CONFIG, "url: https", "link: https", "link"),
    Mistake(RENOVATE, "renovate.json", '"minimumReleaseAge": "7 days"', '"minimumReleaseAge": 7', "minimumReleaseAge"),
    Mistake(RENOVATE, "renovate.json", '"timestamp-optional"', '"optional"', "'optional' is not one of"),
    Mistake(RENOVATE, "renovate.json", '"enabled": false', '"enabled": "never"', "'never' is not of type 'boolean'"),
    Mistake(COMPOSE, BESIDE, "depends_on:", "depend_on:", "depend_on"),
    Mistake(HADOLINT, DOCKERFILE, "WORKDIR /workspace", "WORKDIR workspace", "DL3000"),
]


@pytest.mark.parametrize("tool", READ)
def test_every_mistake_is_refused(tool: str, rendered: Path, tmp_path: Path) -> None:
    assert_each_is_refused(
        tmp_path, tool, MISTAKES, lambda mistake: (rendered if mistake.path in READ[tool][1] else ROOT) / mistake.path
    )


def files_of(repository: Path) -> Iterator[Path]:
    """Yield what Git would take, and what it would not but the template made."""
    ignored = re.compile(
        r"\.git|\.venv|build|__pycache__|\.\w+_cache|\.hypothesis|\.schemathesis|uv\.lock|.*\.egg-info"
    )
    for directory, directories, names in repository.walk():
        directories[:] = [name for name in directories if not ignored.fullmatch(name)]
        yield from (directory / name for name in names if not ignored.fullmatch(name))


def faults_of_text(data: bytes, properties: dict[str, str]) -> Iterator[str]:
    """Yield in what a file differs from what its editor is told."""
    if properties.get("charset") == "utf-8":
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            yield "charset"
    if properties.get("end_of_line") == "lf" and b"\r" in data:
        yield "end_of_line"
    if properties.get("insert_final_newline") == "true" and data and not data.endswith(b"\n"):
        yield "insert_final_newline"
    if properties.get("trim_trailing_whitespace") == "true" and re.search(rb"[ \t]$", data, re.MULTILINE):
        yield "trim_trailing_whitespace"
    if properties.get("indent_style") == "space" and re.search(rb"^ *\t", data, re.MULTILINE):
        yield "indent_style"
    if properties.get("indent_style") == "tab" and re.search(rb"^ ", data, re.MULTILINE):
        yield "indent_style"


def test_every_file_is_as_its_editor_is_told(repository: Path) -> None:
    files = list(files_of(repository))
    assert len(files) > 100
    for path in files:
        assert not list(faults_of_text(path.read_bytes(), get_properties(str(path)))), path


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.py", b"x = '\xff'\n", "charset"),
        ("a.py", b"x = 1\r\n", "end_of_line"),
        ("a.py", b"x = 1", "insert_final_newline"),
        ("a.md", b"a \n", "trim_trailing_whitespace"),
        ("a.py", b"if x:\n\ty = 1\n", "indent_style"),
        ("Makefile", b"all:\n    true\n", "indent_style"),
    ],
)
def test_a_file_that_is_otherwise_is_refused(repository: Path, name: str, text: bytes, fault: str) -> None:
    assert list(faults_of_text(text, get_properties(str(repository / name)))) == [fault]


def test_an_editor_is_told_what_the_formatter_does(repository: Path) -> None:
    ruff = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    told = get_properties(str(repository / "app.py"))
    assert told["max_line_length"] == str(ruff["line-length"])
    assert told["indent_size"] == str(ruff.get("indent-width", 4))


# The options of `uv pip compile` that Renovate understands, with a value behind an equals sign.
UNDERSTOOD = {"--universal", "--generate-hashes", "--constraint", "--group", "--output-file"}


def test_renovate_compiles_what_make_locks(rendered: Path) -> None:
    """Renovate reads a command from the head of each compiled file, and takes them in the order of their names."""
    config = json.loads((rendered / "renovate.json").read_text(encoding="utf-8"))
    (pattern,) = config["pip-compile"]["managerFilePatterns"]
    names = sorted(path.name for path in rendered.iterdir() if re.search(pattern.strip("/"), path.name))
    assert names == ["requirements-dev.txt", "requirements.txt"]
    compiled: list[str] = []
    for name in names:
        command = (rendered / name).read_text(encoding="utf-8").splitlines()[1]
        assert command.startswith("#    uv pip compile ")
        options = dict(option.partition("=")[::2] for option in command.split() if option.startswith("--"))
        assert options.keys() <= UNDERSTOOD
        assert options["--output-file"] == name
        assert options.get("--constraint") in (None, *compiled)
        compiled.append(name)
    others = {"pep621", "pip_requirements", "poetry", "setup-cfg"}
    assert not others.intersection(config["enabledManagers"]), "two managers would change one file"


def test_renovate_waits_for_a_week(repository: Path) -> None:
    config = json.loads((repository / "renovate.json").read_text(encoding="utf-8"))
    assert config["minimumReleaseAge"] == "7 days"
    for rule in config["packageRules"]:
        if "minimumReleaseAge" in rule:
            assert rule["matchUpdateTypes"] == ["digest", "pinDigest"]


def test_renovate_leaves_the_image_of_the_project_alone(rendered: Path) -> None:
    rules = json.loads((rendered / "renovate.json").read_text(encoding="utf-8"))["packageRules"]
    (disabled,) = (rule["matchPackageNames"] for rule in rules if "matchPackageNames" in rule and not rule["enabled"])
    assert disabled == [rendered.name, f"**/{rendered.name}"]


def faults_of_container(project: Path) -> Iterator[str]:
    """Yield what of the container for editors does not fit the project."""
    container = json.loads((project / CONTAINER).read_text(encoding="utf-8"))
    files = [(project / CONTAINER).parent / path for path in container["dockerComposeFile"]]
    servers, beside = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in files)
    if container["service"] not in beside["services"] or container["runServices"] != [container["service"]]:
        yield "service"
        return
    service = beside["services"][container["service"]]
    # Paths begin where the first file is.
    dockerfile = project / service["build"] / "Dockerfile"
    if not re.search(rf"\buseradd\b.* {container['remoteUser']}\b", dockerfile.read_text(encoding="utf-8")):
        yield "remoteUser"
    if f".:{container['workspaceFolder']}" not in service["volumes"]:
        yield "workspaceFolder"
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    if [f"PORT ?= {port}" for port in container["forwardPorts"]] != re.findall(
        r"^PORT \?= \d+$", makefile, re.MULTILINE
    ):
        yield "forwardPorts"
    for command in ("initializeCommand", "postCreateCommand"):
        for target in re.findall(r"\bmake (\S+)", container[command]):
            if not re.search(rf"^{re.escape(target)}\b.*:", makefile, re.MULTILINE):
                yield command
    yield from sorted(service["depends_on"].keys() - servers["services"].keys())
    known = servers["services"]["api"]["environment"]
    yield from sorted(service["environment"].keys() - known.keys())
    secrets = (project / ".env.example").read_text(encoding="utf-8")
    yield from (name for name in re.findall(r"\{(\w+):\?", str(service)) if f"{name}=\n" not in secrets)


@pytest.mark.parametrize("variant", variants_to_test(), ids=name_of)
def test_the_container_for_editors_fits(variant: dict[str, bool], tmp_path: Path) -> None:
    project = render(tmp_path, **variant)
    assert not list(faults_of_container(project))
    service = yaml.safe_load((project / BESIDE).read_text(encoding="utf-8"))["services"]["dev"]
    hosts = {url.partition("@")[2].partition("/")[0] for name, url in service["environment"].items() if "_URL" in name}
    assert hosts == {
        "db",
        *(["redis"] if variant["caching"] else []),
        *(["rabbitmq"] if variant["queued_writes"] else []),
    }


@pytest.mark.parametrize(
    ("path", "text", "instead", "fault"),
    [
        (CONTAINER, '"service": "dev"', '"service": "api"', "service"),
        (CONTAINER, '"remoteUser": "dev"', '"remoteUser": "developer"', "remoteUser"),
        (CONTAINER, '"workspaceFolder": "/workspace"', '"workspaceFolder": "/srv"', "workspaceFolder"),
        (CONTAINER, "[8000]", "[8001]", "forwardPorts"),
        (CONTAINER, "make .venv/dev", "make venv", "postCreateCommand"),
        (BESIDE, "      redis: {", "      cache: {", "cache"),
        (BESIDE, "REDIS_URL:", "CACHE_URL:", "CACHE_URL"),
        (BESIDE, "{MIGRATION_PASSWORD:?", "{OWNER_PASSWORD:?", "OWNER_PASSWORD"),
    ],
)
def test_a_container_that_does_not_fit_is_refused(
    rendered: Path, path: str, text: str, instead: str, fault: str
) -> None:
    source = (rendered / path).read_text(encoding="utf-8")
    assert source.count(text) == 1
    try:
        (rendered / path).write_text(source.replace(text, instead), encoding="utf-8")
        assert list(faults_of_container(rendered)) == [fault]
    finally:
        (rendered / path).write_text(source, encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("docker")
def test_compose_reads_the_container_for_editors(rendered: Path) -> None:
    files = ["--file", "docker-compose.yml", "--file", BESIDE]
    command = ["docker", "compose", *files, "config", "--format", "json"]
    config = subprocess.run(command, cwd=rendered, env=clean_environment(), capture_output=True, text=True, check=True)
    service = json.loads(config.stdout)["services"]["dev"]
    assert service["build"]["context"] == str(rendered / ".devcontainer")
    assert service["volumes"][0]["source"] == str(rendered)


@pytest.mark.parametrize("tool", HOOKS)
def test_a_commit_of_the_template_is_checked(tool: str, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".git", ".venv", "build", "uv.lock", "__pycache__", ".*_cache")
    checkout = Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=ignored))
    (checkout / ".venv").symlink_to(sys.prefix)
    repository = Repository(checkout, f".venv/bin/{tool}")
    path = f"{TEMPLATE.name}/app/crud.py"
    for text, found in (("x=1\n", "1 file would be reformatted"), ("\n\nundefined()\n", "F821")):
        done = repository.commit(path, text)
        assert done.returncode != 0
        assert found in done.stdout
    done = repository.commit(path, "\n\nCONSTANT = 1\n")
    assert done.returncode == 0, done.stdout
    assert not list(checkout.rglob(".ruff_cache")), "a cache in the template would be rendered"
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    # The last one takes its time on what is not in the cache; `make lint` runs it.
    assert [hook["entry"].split()[0] for hook in hooks] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]


def test_one_form_asks_what_the_other_asks(rendered: Path, tmp_path: Path) -> None:
    form = yaml.safe_load((rendered / BUG).read_text(encoding="utf-8"))
    asked = [part["attributes"]["label"] for part in form["body"] if part["type"] != "markdown"]
    gitlab = render(tmp_path, ci="gitlab")
    text = (gitlab / ".gitlab/issue_templates/Bug.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == asked
    assert not (gitlab / ".github").exists()
    assert not (rendered / ".gitlab").exists()


def test_every_path_has_an_owner() -> None:
    lines = (ROOT / ".github/CODEOWNERS").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"\S+( @[\w-]+(/[\w-]+)?)+", rule) for rule in rules)
    assert rules[0].startswith("* ")


def faults_of_directions(repository: Path) -> Iterator[str]:
    """Yield what `AGENTS.md` names and is not there."""
    text = (repository / "AGENTS.md").read_text(encoding="utf-8")
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for quoted in re.findall(r"`([^`\n]+)`", text):
        target = re.match(r"make ([\w-]+)", quoted)
        if target and not re.search(rf"^{target[1]}:", makefile, re.MULTILINE):
            yield quoted
        places = (repository, TEMPLATE) if repository == ROOT else (repository,)
        path = re.fullmatch(r"[\w.{}/-]+/[\w./-]*|[\w.-]+\.(md|txt|toml|json|yml|py)|\.\w+", quoted)
        if path and not any((place / quoted).exists() for place in places):
            yield quoted


def test_the_directions_lead_somewhere(repository: Path) -> None:
    assert not list(faults_of_directions(repository))
    assert len((repository / "AGENTS.md").read_text(encoding="utf-8").splitlines()) < 80


@pytest.mark.parametrize("wrong", ["make formats", "app/models/", "tests/test_lost.py", "LOST.md"])
def test_directions_that_lead_nowhere_are_refused(repository: Path, tmp_path: Path, wrong: str) -> None:
    for path in repository.iterdir():
        if path.name not in ("AGENTS.md", ".git", ".venv", "build"):
            (tmp_path / path.name).symlink_to(path)
    text = (repository / "AGENTS.md").read_text(encoding="utf-8")
    (tmp_path / "AGENTS.md").write_text(f"{text}`{wrong}`\n", encoding="utf-8")
    assert wrong in faults_of_directions(tmp_path)
