"""Which test executes a command of a workflow or of a pipeline."""

from collections.abc import Callable

import pytest

type Test = Callable[..., None]


def executes(executed: dict[str, Test], command: str) -> Callable[[Test], Test]:
    """Let a test have a command, which it executes, and note it."""

    def having(test: Test) -> Test:
        executed[command] = test
        parametrized: Test = pytest.mark.parametrize("command", [command])(test)
        return parametrized

    return having
