"""Every command of the documents is executed by a test: here, or in the test that is named here."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import (
    test_drills,
    test_lint,
    test_load,
    test_mutations,
    test_observe,
    test_render,
    test_stack,
    test_supply,
    test_updates,
    test_variants,
)
from tests.conftest import clean_environment
from tests.test_variants import drive, made_to_serve
from tests.variants import QUESTIONS, ROOT, TEMPLATE, core_variants, documents, product_of_all_answers, render

# Lines of the README that somebody reads who has just rendered it.
LONGEST_README = 150

# Its drill starts such a stack, promotes, and makes a standby, with these commands and the name of its own project.
CLUSTERS = test_drills.test_no_fault_of_a_cluster_loses_or_doubles_an_item
CLUSTER = "docker compose -f docker-compose.yml -f docker-compose.cluster.yml"

# Commands that other tests execute, or that are this test run itself.
EXECUTED_ELSEWHERE = {
    "make": test_stack,
    "make run": test_variants.test_a_fresh_checkout_runs_with_one_command,
    "make dev": test_variants.test_make_dev_serves_what_was_written,
    "make test": test_variants.test_the_tests_of_the_variant_pass,
    "make test-stack": test_stack.test_all_tests_of_the_variant_pass_on_real_servers,
    "make drill": test_drills.test_no_fault_loses_or_doubles_an_item,
    "make drill-clusters": CLUSTERS,
    f"{CLUSTER} up --build -d --wait": CLUSTERS,
    f"{CLUSTER} exec standby sh /promote.sh": CLUSTERS,
    f"{CLUSTER} stop db": CLUSTERS,
    f"{CLUSTER} run --rm --no-deps --entrypoint sh db /node.sh copy": CLUSTERS,
    f"{CLUSTER} up -d --wait db": CLUSTERS,
    f"{CLUSTER} exec standby sh /docker-entrypoint-initdb.d/standby.sh": CLUSTERS,
    "make load": test_load.report,
    "make load RATE=500": test_load.open_loop,
    "make soak": test_drills.test_a_soak_loses_or_doubles_no_item,
    test_variants.MAKE_A_KEY: test_variants.test_a_guarded_service_keeps_to_its_openapi_document,
    "make lint": test_lint.test_the_variant_is_clean,
    'make revision M="add a column"': test_variants.test_the_tests_of_the_variant_pass,
    "make sbom": test_supply.test_the_list_of_packages_is_valid_and_names_each_with_its_hashes,
    "make audit": test_supply.test_an_audit_is_clean_only_when_everything_was_asked,
    "make lock": test_render.test_requirements_satisfy_the_ranges,
    test_variants.ORIGINAL_COMMAND: test_variants.test_the_variant_boots_and_serves,
    test_stack.UP: test_stack.test_an_item_lives_and_dies,
    test_stack.SMOKE: test_stack.test_a_pipeline_asks_the_service,
    test_stack.DOWN: test_stack.stack,
    test_observe.UP: test_observe.stack,
    test_observe.BUILD: test_observe.test_promtool_accepts_the_rules_and_their_cases,
    test_observe.CHECK: test_observe.test_promtool_accepts_the_rules_and_their_cases,
    test_observe.DOWN: test_observe.stack_of,
    # As the drills do it, which take `scaled.env` into their environment.
    "cat scaled.env >> .env": test_drills.test_replicas_come_and_go_without_a_failed_read,
    "docker compose up --build -d --wait --scale api=3 --scale worker=2": (
        test_drills.test_replicas_come_and_go_without_a_failed_read
    ),
    "docker compose up --build -d --wait --scale api=3": test_drills.test_replicas_come_and_go_without_a_failed_read,
    "docker compose up --build -d --wait --no-deps --no-recreate --scale api=6 api": (
        test_drills.test_replicas_come_and_go_without_a_failed_read
    ),
    "docker compose up -d --wait --no-deps --scale api=3 api": (
        test_drills.test_replicas_come_and_go_without_a_failed_read
    ),
    "make drill-replicas": test_drills.test_replicas_come_and_go_without_a_failed_read,
    **test_updates.EXECUTED,
}


def commands_of(text: str) -> list[str]:
    """Return the commands in the bash blocks of a document."""
    blocks = re.findall(r"^( *)```bash\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [block.strip() for _, block in blocks]


def test_a_block_holds_one_command() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for command in commands_of(document.read_text(encoding="utf-8")):
            assert "\n" not in command, (document.name, command)


def test_the_first_two_commands_are_demo_and_test() -> None:
    assert commands_of((ROOT / "README.md").read_text(encoding="utf-8"))[:2] == ["make demo", "make test"]


def test_make_demo_serves_the_default_answers(tmp_path: Path) -> None:
    demo = f"DEMO={tmp_path}/demo/highload-service"
    with made_to_serve(ROOT, tmp_path / "demo.log", "demo", demo, f"PYTHON={sys.executable}") as client:
        drive(client)
        address = client.base_url.netloc.decode()
        (shown,) = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        command, _, answer = shown.rpartition("$ ")[2].partition("\n")
        said = subprocess.run(
            ["sh", "-c", command.replace("127.0.0.1:8000", address)], capture_output=True, text=True, check=True
        ).stdout
    assert set(without_chance(answer)) <= set(without_chance(said)), said


def without_chance(answer: str) -> list[str]:
    """Return the lines of an answer without its ids, tags and times."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=etag: ).*|[0-9T:.-]{26}Z", "...", answer).splitlines()


def test_the_cookiecutter_commands_of_the_readme_render(tmp_path: Path) -> None:
    commands = [
        command
        for command in commands_of((ROOT / "README.md").read_text(encoding="utf-8"))
        if command.startswith(("cookiecutter ", "uvx cookiecutter "))
    ]
    assert len(commands) == 2
    for number, command in enumerate(commands):
        arguments = shlex.split(command.removeprefix("uvx ").replace("gh:org/cookiecutter-fastapi-highload", str(ROOT)))
        arguments[0] = str(Path(sys.executable).parent / arguments[0])
        done = subprocess.run(
            [*arguments, "--output-dir", str(tmp_path / str(number))],
            input="\n" * len(QUESTIONS),
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "0/highload-service/app/highload/reads/cache.py").exists()
    assert not (tmp_path / "1/order-service/app/highload/reads/cache.py").exists()
    assert (tmp_path / "1/order-service/app/routes/orders.py").exists()


@pytest.mark.parametrize("variant", core_variants(), ids=str)
def test_every_command_of_a_rendered_project_is_executed(variant: dict[str, bool], tmp_path: Path) -> None:
    for command in commands_of(documents(render(tmp_path, **variant))):
        assert command in EXECUTED_ELSEWHERE or test_stack.runs_in_the_stack(command), command


@pytest.mark.parametrize("variant", core_variants(), ids=str)
@pytest.mark.parametrize("deployment", ["compose", "kubernetes"])
def test_a_rendered_readme_is_short_and_leads_to_the_rest(
    variant: dict[str, bool], deployment: str, tmp_path: Path
) -> None:
    project = render(tmp_path, deployment=deployment, **variant)
    assert len((project / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README
    reached, left = set(), [project / "README.md"]
    while left:
        document = left.pop()
        reached.add(document)
        for path in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            target = (document.parent / path).resolve()
            assert target.exists(), (document.name, path)
            if target.suffix == ".md" and target not in reached:
                left.append(target)
    assert set(project.glob("docs/*.md")) <= reached


@pytest.mark.slow
def test_the_quick_benchmark_prints_its_tables() -> None:
    if not all(map(shutil.which, ("wrk", "hey", "docker"))):
        pytest.skip("wrk, hey or docker is missing: the benchmark was not run")
    # One short round on small tables shows that it works; its ratios say nothing.
    done = subprocess.run(
        ["make", "bench-quick", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        env=clean_environment() | {"ROUNDS": "1", "SECONDS": "1", "SCALE": "0.01"},
        capture_output=True,
        text=True,
        check=False,
    )
    measures, ratios = done.stdout.split("errors\n")[1].split("\nratio")
    rows = re.findall(r"^\S.+?  +([\d,]+)  .*?(\d+)$", measures, re.MULTILINE)
    assert len(rows) == 43, done.stdout + done.stderr
    assert all(rate != "0" and errors == "0" for rate, errors in rows), done.stdout
    assert len(re.findall(r"^\S.+ [<>]= +[\d.]+ +[\d.]+ +[\d.]+-[\d.]+", ratios, re.MULTILINE)) == 31, done.stdout


def test_the_page_of_the_benchmarks_is_what_they_printed(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    shutil.copy(ROOT / "docs/benchmarks.json", results / "results.json")
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    printed = page.split("```text\n")[1].split("```")[0]
    (results / "quick.txt").write_text(printed)
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "benchmarks.md").write_text(page.partition("## Ratios")[0])
    subprocess.run([sys.executable, "-m", "benchmarks.page", results, docs], cwd=ROOT, check=True)
    assert (docs / "benchmarks.md").read_text(encoding="utf-8") == page
    for plot in (docs / "plots").iterdir():
        assert plot.read_bytes() == (ROOT / "docs/plots" / plot.name).read_bytes()


@pytest.mark.slow
def test_the_costs_of_a_request_are_measured() -> None:
    if not all(map(shutil.which, ("wrk", "hey", "docker"))):
        pytest.skip("wrk, hey or docker is missing: the costs were not measured")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "costs"],
        cwd=ROOT,
        env=clean_environment() | {"ROUNDS": "1", "SECONDS": "1", "SCALE": "0.01"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads((ROOT / "build/bench/costs.json").read_text(encoding="utf-8"))
    published = json.loads((ROOT / "docs/costs.json").read_text(encoding="utf-8"))
    for kind, parts in published["costs"].items():
        # In one second the clock of a process, which ticks a hundred times, does not see what costs little.
        needed = {part for part, cost in parts.items() if cost > 50}
        assert needed <= {part for part, cost in measured["costs"][kind].items() if cost > 0}, (kind, done.stdout)


def test_the_page_of_scaling_is_what_is_reckoned(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs/costs.json", tmp_path)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/scaling.md", tmp_path / "docs")
    subprocess.run([sys.executable, "-m", "benchmarks.scaling", tmp_path, tmp_path / "docs"], cwd=ROOT, check=True)
    page = (ROOT / "docs/scaling.md").read_text(encoding="utf-8")
    assert page.count("```text\n") == 3
    assert (tmp_path / "docs/scaling.md").read_text(encoding="utf-8") == page


def test_the_numbers_of_the_readme_are_those_of_the_benchmarks() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"```text\n(.*?)```", readme, re.DOTALL)
    for line in quoted.splitlines():
        assert line in page.splitlines()
    above = readme.partition("## Questions")[0]
    medians = set(re.findall(r"[<>]= +[\d.]+ +([\d.]+)", quoted)) | set(
        re.findall(r" ([\d.]+)(?:  short)?$", quoted, re.MULTILINE)
    )
    claimed = set(re.findall(r"(?<!Python )\b\d+\.\d\d\b", above))
    assert claimed
    assert claimed <= medians


def test_the_counts_of_the_readme_are_those_of_the_tests() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    faults = (TEMPLATE / "tests/drills/faults.py").read_text(encoding="utf-8").partition("\nFAULTS = {")[2]
    names = re.findall(r'^    "[a-z-]+": ', faults.partition("\n}\n")[0], re.MULTILINE)
    assert f"{len(names)} faults" in readme
    assert f"{len(list(product_of_all_answers()))} combinations of answers are rendered" in readme
    assert f"{len(core_variants())} are booted" in readme
    assert len(test_mutations.MUTATIONS) > 300


def test_links_between_documents_lead_somewhere() -> None:
    for document in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for path in re.findall(r"`((?:docs|tests|hooks|tools)/[\w./-]+)`", document.read_text(encoding="utf-8")):
            assert (ROOT / path).exists() or (TEMPLATE / path).exists(), (document.name, path)
