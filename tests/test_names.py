"""The name of the resource: it stands wherever the template says item, and the project stays as good as before."""

import re
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter

from tests.commits import commit_all
from tests.conftest import clean_environment, install, make, options_for_tests
from tests.variants import QUESTIONS, ROOT, TEMPLATE, render, text_files

type Load = Callable[..., dict[str, Any]]

NAMES = [("purchase_order", "purchase_orders"), ("category", "categories")]
# What is left: a dictionary calls it so, SQLAlchemy an argument of its arrays and Alembic an option.
ITEM = re.compile(r"(?<!\.)(?<!render_)item(?!_type)|\.item(?!s\(\)|_type)", re.IGNORECASE)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load what a hook defines, as it stands after the answers."""

    def load(name: str, **answers: Any) -> dict[str, Any]:
        source = (ROOT / f"hooks/{name}.py").read_text(encoding="utf-8")
        body = source[: source.index("sys.exit(main())")]
        answers = {"resource": "item", "resource_plural": "items", **answers}
        (tmp_path / f"{name}.py").write_text(
            body.replace('json.loads(r"""{{ cookiecutter | tojson }}""")', repr(answers)), encoding="utf-8"
        )
        return runpy.run_path(str(tmp_path / f"{name}.py"))

    return load


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("list_items, ITEM_QUEUE", "list_purchase_orders, PURCHASE_ORDER_QUEUE"),
        ("ItemCreate, NewItem", "PurchaseOrderCreate, NewPurchaseOrder"),
        ('Index("ix_items_created_at_id")', 'Index("ix_purchase_orders_created_at_id")'),
        ('prefix="/items", tags=["items"]', 'prefix="/purchase_orders", tags=["purchase_orders"]'),
        ("for item in items:", "for purchase_order in purchase_orders:"),
        ("NEW_ITEMS = items.router", "NEW_PURCHASE_ORDERS = purchase_orders.router"),
        ("fields.items()", "fields.items()"),
        ("f'{len(fields.items())} items'", "f'{len(fields.items())} purchase orders'"),
        ("pytest_collection_modifyitems, itemgetter, sitemap", "pytest_collection_modifyitems, itemgetter, sitemap"),
        ('"""Return an item, or None."""', '"""Return a purchase order, or None."""'),
        ("# An `ItemRead` is an item's.", "# A `PurchaseOrderRead` is a purchase order's."),
        ('"""An item."""', '"""A purchase order."""'),
        ("# Items wait, so an\n# item does.", "# Purchase orders wait, so a\n# purchase order does."),
        ("test_an_item_lives", "test_a_purchase_order_lives"),
        ('f"item {item} of {items}"', 'f"purchase order {purchase_order} of {purchase_orders}"'),
        ('text("SELECT * FROM items WHERE x")', 'text("SELECT * FROM purchase_orders WHERE x")'),
        ('"POST /items HTTP/1.1", "items.db"', '"POST /purchase_orders HTTP/1.1", "purchase_orders.db"'),
    ],
)  # fmt: skip
def test_every_form_of_the_word_is_renamed(load: Load, text: str, expected: str) -> None:
    hook = load("post_gen_project", resource="purchase_order", resource_plural="purchase_orders")
    assert hook["renamed"](text, hook["words_of_prose"](text, markdown=False)) == expected


def test_prose_and_code_of_markdown_differ(load: Load) -> None:
    hook = load("post_gen_project", resource="purchase_order", resource_plural="purchase_orders")
    text = "An item, as `items` has it:\n\n```python\nfor item in items:\n```\n\nItems wait."
    expected = "A purchase order, as `purchase_orders` has it:\n\n```python\n"
    expected += "for purchase_order in purchase_orders:\n```\n\nPurchase orders wait."
    assert hook["renamed"](text, hook["words_of_prose"](text, markdown=True)) == expected


@pytest.mark.parametrize(
    ("one", "article"),
    [
        *(("order", "an"), ("category", "a"), ("hour", "an"), ("house", "a"), ("user", "a"), ("unit", "a")),
        *(("update", "an"), ("uninstallation", "an"), ("one_off", "a"), ("euro", "a"), ("umbrella", "an")),
    ],
)
def test_the_article_suits_the_name(load: Load, one: str, article: str) -> None:
    renamed = load("post_gen_project", resource=one, resource_plural=f"{one}s")["renamed"]
    assert renamed("an item, test_an_item") == f"{article} {one}, test_{article}_{one}"


def test_other_answers_keep_their_words(load: Load) -> None:
    answers = {"project_slug": "item-shop", "project_name": "Items of an Item Shop", "description": "Sells items"}
    renamed = load("post_gen_project", resource="order", resource_plural="orders", **answers)["renamed"]
    assert renamed('NAME = "item-shop"; items, item-shops') == 'NAME = "item-shop"; orders, order-shops'
    assert renamed("# Items of an Item Shop\n\nSells items.") == "# Items of an Item Shop\n\nSells items."


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from a import PartRead, NewPart", "from a import NewPart, PartRead"),
        ("from a import part, PARTS, Part", "from a import PARTS, Part, part"),
        ("from a import (\n    b,\n    A,\n)", "from a import (\n    A,\n    b,\n)"),
        (f"from a import {'b' * 60}, {'a' * 60}", f"from a import (\n    {'a' * 60},\n    {'b' * 60},\n)"),
    ],
)
def test_imports_are_left_as_the_formatter_leaves_them(load: Load, line: str, expected: str) -> None:
    hook = load("post_gen_project")
    assert hook["IMPORT"].sub(hook["sorted_import"], line) == expected


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ({"resource": "row"}, r"resource 'row' has another meaning in \S+\.py of this template: enter a word that says "
            r"more, for example shop_row\."),
        ({"resource": "migration"}, r"resource_plural 'migrations' has another meaning in tests/test_migrations\.py"),
        ({"resource": "datum", "resource_plural": "keys"}, r"resource_plural 'keys' has another meaning in"),
    ],
)  # fmt: skip
def test_a_word_that_the_template_uses_is_refused(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, answers: dict[str, str], sentence: str
) -> None:
    """Which words those are is computed from the files of the variant, so there is no list to keep."""
    with pytest.raises(FailedHookException):
        render(tmp_path, **answers)
    assert re.match(sentence, capfd.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_common_noun_is_accepted(tmp_path: Path) -> None:
    for one in ("order", "note", "user", "product", "event", "message", "customer", "record"):
        assert (render(tmp_path, project_slug=one, resource=one) / f"app/routes/{one}s.py").exists()


def test_the_engine_speaks_of_no_item() -> None:
    for directory in ("app/highload", "tests/highload"):
        for path in (TEMPLATE / directory).rglob("*.*"):
            if path.suffix in {".py", ".md"}:
                assert not ITEM.search(path.read_text(encoding="utf-8")), path


def test_a_project_that_is_rendered_again_keeps_what_its_owner_wrote(tmp_path: Path) -> None:
    project = render(tmp_path, resource="gadget")
    own, gadgets = project / "app/baskets.py", project / "app/routes/gadgets.py"
    own.write_text("items = 1\n", encoding="utf-8")
    gadgets.write_text("# mine\n", encoding="utf-8")
    commit_all(project)
    answers = {"resource": "gadget"}
    cookiecutter(
        str(ROOT), no_input=True, output_dir=str(tmp_path), extra_context=answers,
        overwrite_if_exists=True, skip_if_file_exists=True,
    )  # fmt: skip
    assert (own.read_text(encoding="utf-8"), gadgets.read_text(encoding="utf-8")) == ("items = 1\n", "# mine\n")
    cookiecutter(str(ROOT), no_input=True, output_dir=str(tmp_path), extra_context=answers, overwrite_if_exists=True)
    assert own.read_text(encoding="utf-8") == "items = 1\n"
    assert "GadgetRead" in gadgets.read_text(encoding="utf-8")
    assert not (project / "app/routes/items.py").exists()


def test_the_default_words_are_those_of_the_template(tmp_path: Path) -> None:
    assert (QUESTIONS["resource"], QUESTIONS["resource_plural"]) == ("item", "{{ cookiecutter.resource }}s")
    assert not (render(tmp_path) / ".rendering").exists()


@pytest.fixture(scope="module")
def named(variant: dict[str, bool], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A project of each combination of features for each name, which take turns to be the first."""
    number = int(variant["caching"])
    projects = []
    for one, many in NAMES[number:] + NAMES[:number]:
        projects.append(render(tmp_path_factory.mktemp(one), resource=one, resource_plural=many, **variant))
    return [install(project, tmp_path_factory) for project in projects]


def test_no_word_of_the_template_is_left(named: list[Path]) -> None:
    for project in named:
        for path, text in text_files(project).items():
            assert not ITEM.search(path), path
            assert not ITEM.search(text), (path, ITEM.search(text))


def test_a_named_project_is_clean(named: list[Path], tmp_path: Path) -> None:
    for project in named:
        make(project, "lint", MYPY_CACHE_DIR=str(tmp_path))


@pytest.mark.slow
def test_the_tests_of_a_named_project_pass(named: list[Path], variant: dict[str, bool]) -> None:
    """Those of the engine are the same in every project, so they run elsewhere."""
    if variant["caching"] != variant["queued_writes"]:
        pytest.skip("with both and with neither show it, each with another name; style and types show the rest")
    options = f"--ignore=tests/highload {options_for_tests(variant)}"
    done = make(named[0], "test", PYTEST_ADDOPTS=options)
    assert " passed" in done.stdout
    assert " failed" not in done.stdout


def python(project: Path, code: str) -> str:
    """Run code in a project and return what it prints."""
    command = [str(project / ".venv/bin/python"), "-c", code]
    return subprocess.run(
        command, cwd=project, env=clean_environment(), capture_output=True, text=True, check=True
    ).stdout


def test_what_the_service_answers_besides_is_refused(named: list[Path], load: Load) -> None:
    code = "from app.main import app; print(*{route.path.split('/')[1] for route in app.routes})"
    first_parts = {part.removesuffix(".json") for part in python(named[0], code).split()}
    plural = next(many for one, many in NAMES if one in named[0].parent.name)
    assert first_parts - {plural} == load("pre_gen_project")["ROUTES"]


def test_words_of_sql_are_refused(named: list[Path], load: Load) -> None:
    code = """
from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS
from sqlalchemy.dialects.sqlite.base import SQLiteIdentifierPreparer
print(*RESERVED_WORDS | SQLiteIdentifierPreparer.reserved_words)
"""
    assert set(python(named[0], code).split()) <= load("pre_gen_project")["SQL_WORDS"]


def assert_style(project: Path) -> None:
    for command in (["check"], ["format", "--check"]):
        arguments = [str(project / ".venv/bin/ruff"), *command, "--no-cache", "."]
        done = subprocess.run(arguments, cwd=project, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("one", ["ox", "recommendation"])
def test_names_of_usual_length_keep_the_style(
    named: list[Path], variant: dict[str, bool], load: Load, tmp_path: Path, one: str
) -> None:
    """What the formatter leaves alone with the shortest name and with the longest, it leaves alone between them."""
    assert len(f"{one}s") in (3, load("post_gen_project")["LONGEST_THAT_FITS"])
    project = render(tmp_path, resource=one, **variant)
    (project / ".venv").symlink_to(named[0] / ".venv")
    assert_style(project)


def test_make_format_gives_the_longest_names_their_style(
    capfd: pytest.CaptureFixture[str], named: list[Path], variant: dict[str, bool], load: Load, tmp_path: Path
) -> None:
    longest = "recommendation_of_a_warehouse_x"[: load("pre_gen_project")["LONGEST_NAME"] - 1]
    assert len(f"ix_{longest}s_created_at_id") <= 63
    project = render(tmp_path, resource=longest, **variant)
    assert "    make format\n    make run\n" in capfd.readouterr().out
    (project / ".venv").symlink_to(named[0] / ".venv")
    make(project, "format")
    assert_style(project)
