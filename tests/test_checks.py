"""The page of what each variant went through says what the reports of the tests say."""

from pathlib import Path

import pytest

from tests.checks import CHECKS, OF_EVERY_VARIANT, OF_THE_OTHERS, PAGE, Result, keys_of, page_of, results_in
from tests.variants import core_variants, name_of, variants_to_test

REPORT = """<testsuites><testsuite>
<testcase name="test_the_variant_is_clean[caching]" time="2.0"/>
<testcase name="test_each_recipe_works[caching-2-x]" time="3.5"/>
<testcase name="test_each_recipe_works[caching-3-x]" time="1.0"><failure message="no"/></testcase>
<testcase name="test_each_recipe_works[plain]" time="0.0"><skipped/></testcase>
<testcase name="test_something_else[plain]" time="1.0"/>
</testsuite></testsuites>"""


def test_a_check_has_passed_when_all_its_tests_have(tmp_path: Path) -> None:
    (tmp_path / "slow.xml").write_text(REPORT, encoding="utf-8")
    assert results_in([tmp_path / "slow.xml"]) == {
        ("caching", "style, types"): Result(2.0, passed=True),
        ("caching", "recipes"): Result(4.5, passed=False),
    }


def test_one_test_checks_the_style_of_all_variants_that_are_not_tested() -> None:
    tested = {name_of(variant) for variant in variants_to_test()}
    others = {name_of(variant) for variant in core_variants()} - tested
    found = {*keys_of(f"{OF_THE_OTHERS}[{name_of(core_variants()[0])}]")}
    assert found == {(variant, "style, types") for variant in others}


def test_of_a_test_that_was_run_again_the_newest_run_counts(tmp_path: Path) -> None:
    case = '<testcase name="test_each_recipe_works[caching-2-x]" time="{}.0">{}</testcase>'
    for name, day, content in (("a", 2, case.format(2, "")), ("b", 1, case.format(1, "<failure/>"))):
        suite = f'<testsuite timestamp="2026-01-0{day}T00:00:00+00:00">{content}</testsuite>'
        (tmp_path / f"{name}.xml").write_text(suite, encoding="utf-8")
    results = results_in(sorted(tmp_path.iterdir()))
    assert results == {("caching", "recipes"): Result(2.0, passed=True)}


def test_a_variant_that_missed_something_makes_no_page() -> None:
    passed = {
        (name_of(variant), check): Result(1, passed=True)
        for variant in core_variants()
        for check in CHECKS
        if variant in variants_to_test() or check in OF_EVERY_VARIANT
    }
    assert page_of(passed)
    for key in passed:
        with pytest.raises(ValueError, match="Run make test-all first"):
            page_of(passed | {key: Result(1, passed=False)})


def test_each_check_is_one_that_there_is() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for tests in CHECKS.values():
        for test in tests:
            assert f"\ndef {test}(" in sources
            assert set(keys_of(f"{test}[plain]"))


def test_the_page_shows_what_every_variant_has_passed() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert header == ["variant", *CHECKS]
    assert [name for name, *_ in rows] == [name_of(variant) for variant in core_variants()]
    tested = {name_of(variant) for variant in variants_to_test()}
    for name, *cells in rows:
        for check, cell in zip(CHECKS, cells, strict=True):
            assert cell.startswith("passed, ") == (name in tested or check in OF_EVERY_VARIANT)
