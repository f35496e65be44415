"""Which check each variant has passed, from the reports that the test runs leave in `build/tests`.

`make test-all`, or the commands in it one by one, leave them; `make variants` writes `docs/variants.md` from them.
"""

import os
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.variants import ROOT, core_variants, name_of, variants_to_test

REPORTS = ROOT / "build/tests"
PAGE = ROOT / "docs/variants.md"
# One test of all variants that are not tested further.
OF_THE_OTHERS = "test_the_variants_that_are_not_tested_are_clean"
# What is checked of a variant, and the tests that do it; the first three of every variant, the others of those in which
# every two features meet.
CHECKS = {
    "style, types": ("test_the_variant_is_clean", OF_THE_OTHERS),
    "booted": ("test_the_variant_boots_and_serves", "test_each_other_variant_boots_and_serves"),
    "OpenAPI": (
        "test_the_service_keeps_to_its_openapi_document",
        "test_a_guarded_service_keeps_to_its_openapi_document",
    ),
    "recipes": ("test_each_recipe_works",),
    "stack": ("test_an_item_lives_and_dies", "test_the_logs_hold_no_error"),
    "tests on its servers": ("test_all_tests_of_the_variant_pass_on_real_servers",),
    "drills": ("test_no_fault_loses_or_doubles_an_item",),
}
OF_EVERY_VARIANT = ("style, types", "booted")
ABOVE = """# Variants

What each variant of code went through in `make test-all`, with the seconds that it took on a machine with {cpus} CPUs,
where three tests run at a time. Of a test that was run again the newest run counts. The last five columns are for the
variants in which every two features meet, each on and off. Write this page anew after such a run:

```bash
make variants
```

"""


class Result(NamedTuple):
    """What became of the tests of a check."""

    seconds: float
    passed: bool

    def and_also(self, other: "Result") -> "Result":
        """Return what became of both."""
        return Result(self.seconds + other.seconds, self.passed and other.passed)


type Results = dict[tuple[str, str], Result]


def results_in(reports: Iterable[Path]) -> Results:
    """Return what became of each check of each variant.

    A test that was skipped is none, and of one that was run again the newest run counts.
    """
    suites = [suite for report in reports for suite in ET.parse(report).iter("testsuite")]
    newest: dict[str, Result] = {}
    for suite in sorted(suites, key=lambda suite: suite.get("timestamp", "")):
        for case in suite.iter("testcase"):
            if case.find("skipped") is None:
                passed = case.find("failure") is None and case.find("error") is None
                newest[case.get("name", "")] = Result(float(case.get("time", "0")), passed)
    results: Results = {}
    for test, result in newest.items():
        for key in keys_of(test):
            results[key] = results[key].and_also(result) if key in results else result
    return results


def keys_of(test: str) -> Iterator[tuple[str, str]]:
    """Yield the variant and the check that a test belongs to, if it belongs to one."""
    name, _, parameters = test.partition("[")
    variants = {name_of(variant) for variant in core_variants()}
    if name == OF_THE_OTHERS:
        variants -= {name_of(variant) for variant in variants_to_test()}
    else:
        variants &= {*parameters.removesuffix("]").split("-")}
    for check, tests in CHECKS.items():
        if name in tests:
            yield from ((variant, check) for variant in variants)


def page_of(results: Results) -> str:
    """Return the page.

    Raises ValueError when a variant has not passed what it has to.
    """
    tested = {name_of(variant) for variant in variants_to_test()}
    lines = [f"| variant | {' | '.join(CHECKS)} |", f"|---|{'---|' * len(CHECKS)}"]
    missing = defaultdict(list)
    for variant in map(name_of, core_variants()):
        cells = []
        for check in CHECKS:
            result = results.get((variant, check))
            if result is not None and result.passed:
                cells.append(f"passed, {max(1, round(result.seconds))} s")
                continue
            cells.append("")
            if variant in tested or check in OF_EVERY_VARIANT:
                missing[variant].append(check)
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    if missing:
        raise ValueError(f"Not passed in the reports: {dict(missing)}. Run make test-all first.")
    return ABOVE.format(cpus=os.process_cpu_count()) + "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    try:
        PAGE.write_text(page_of(results_in(sorted(REPORTS.glob("*.xml")))), encoding="utf-8")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
