"""The answers that are offered: none of them is refused, whatever name was given before."""

import re
import sys
from typing import Any

import pytest
from cookiecutter.prompt import create_env_with_context
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.variants import CONTEXT, QUESTIONS, ROOT

# The hook as a module: without the answers, and without its end.
HOOK: dict[str, Any] = {"__name__": "hook"}
SOURCE = (ROOT / "hooks/pre_gen_project.py").read_text(encoding="utf-8").removesuffix("sys.exit(main())\n")
exec(re.sub(r"^ANSWERS = .*$", "ANSWERS = {}", SOURCE, flags=re.MULTILINE), HOOK)  # noqa: S102

# The questions of Cookiecutter with what it offers, of a choice the first.
OFFERED = {
    name: value[0] if isinstance(value, list) and name in QUESTIONS else value for name, value in CONTEXT.items()
}
ENVIRONMENT = create_env_with_context({"cookiecutter": CONTEXT})
TEMPLATES = {name: ENVIRONMENT.from_string(value) for name, value in OFFERED.items() if isinstance(value, str)}
MODULES = sorted(HOOK["TAKEN"] | HOOK["DEPENDENCIES"] | {name for name in sys.stdlib_module_names if name[0] != "_"})


def offered(**typed: str) -> dict[str, Any]:
    """Return the answers of somebody who types some, and takes what is offered for the rest."""
    answers: dict[str, Any] = {}
    for name, value in (OFFERED | typed).items():
        use = name in TEMPLATES and name not in typed
        answers[name] = TEMPLATES[name].render(cookiecutter=answers) if use else value
    return answers


def reasons(answers: dict[str, Any]) -> dict[str, str]:
    """Return what the hook would say."""
    HOOK["ANSWERS"] = answers
    found: dict[str, str] = HOOK["reasons"]()
    return found


NAMES = st.text(min_size=1, max_size=70) | st.sampled_from(MODULES) | st.from_regex(r"[\w .,&-]{1,70}", fullmatch=True)


@given(name=NAMES)
@example(name="12 Monkeys")
@example(name="数据服务")
@example(name="Сервис")
@example(name="🚀")
@example(name="---")
@example(name="Items")
@example(name="Oδός Васа")  # noqa: RUF001
@example(name="علی\u200cرضا")  # noqa: RUF001
@example(name="x" * 300)
@settings(max_examples=500, deadline=None, database=None)
def test_nothing_that_is_offered_for_a_good_name_is_refused(name: str) -> None:
    answers = offered(project_name=name)
    found = reasons(answers)
    assume("project_name" not in found)
    assert found == {}, answers["project_slug"]


def test_each_question_holds_its_rule() -> None:
    prompts = CONTEXT["__prompts__"]
    assert f"at most {HOOK['LONGEST_SLUG']}" in prompts["project_slug"]
    assert f"2 to {HOOK['LONGEST_NAME']} characters" in prompts["resource"]
    assert f"2 to {HOOK['LONGEST_NAME']} characters" in prompts["resource_plural"]
    assert f"1 to {HOOK['MOST_WORKERS']}, or auto" in prompts["workers"]
    assert all("one line" in prompts[name] for name in ("project_name", "description", "author_name"))
    assert all("? It costs " in prompts[name] for name in HOOK["FEATURES"])


@pytest.mark.parametrize("spelled", [str, str.title, str.upper, lambda name: name.replace("_", " ")])
def test_no_name_of_a_module_is_offered(spelled: Any) -> None:
    refused = {
        name: answers["project_slug"] for name in MODULES if reasons(answers := offered(project_name=spelled(name)))
    }
    assert refused == {}
