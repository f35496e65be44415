"""Every guarantee falls with the line that guards it: without the line, a test of the rendered project fails.

That the same tests pass with all lines in place is shown where they run as a whole, in tests/test_stack.py.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import clean_environment, install
from tests.test_stack import _docker
from tests.variants import render

__all__ = ["_docker"]

TESTS_FAILED = 1


class Mutation(NamedTuple):
    """A line of the service and what takes its place, and the test that notices."""

    file: str
    line: str
    replacement: str
    test: str


MUTATIONS = {
    "no publisher confirm": Mutation(
        "app/broker.py",
        "publisher_confirms=True, on_return_raises=True",
        "publisher_confirms=False",
        "test_queue.py::test_a_message_that_no_queue_takes_is_no_confirm",
    ),
    "acknowledged before it is stored": Mutation(
        "app/tasks.py",
        "task_acks_late=True",
        "task_acks_late=False",
        "test_queue.py::test_a_killed_worker_loses_nothing",
    ),
    "acknowledged when its process dies": Mutation(
        "app/tasks.py",
        "task_reject_on_worker_lost=True",
        "task_reject_on_worker_lost=False",
        "test_queue.py::test_a_killed_process_of_a_worker_loses_nothing",
    ),
    "no ON CONFLICT": Mutation(
        "app/crud.py",
        "select(*rows.c)).on_conflict_do_nothing()",
        "select(*rows.c))",
        "test_queue.py::test_an_unconfirmed_item_that_did_arrive_is_stored_once",
    ),
    "the generation is read after the query": Mutation(
        "app/reads.py",
        "keep(self._key, answer, self._generation)",
        'keep(self._key, answer, (await scopes[0]["state"]["cache"].find(self._key)).generation)',
        "test_cache.py::test_a_slow_reader_cannot_resurrect_an_old_list",
    ),
    "the generation repeats": Mutation(
        "app/cache.py",
        "return secrets.token_bytes(16)",
        "return bytes(16)",
        "test_cache.py::test_a_lost_generation_ends_everything_kept",
    ),
    "a write does not invalidate": Mutation(
        "app/writes.py",
        "for tell in self._on_change:",
        "for tell in ():",
        "test_consistency.py::test_a_read_after_a_write_sees_it",
    ),
    "a missed invalidation is forgotten": Mutation(
        "app/cache.py",
        "self._missed_invalidations += 1",
        "self._missed_invalidations = 0",
        "test_cache.py::test_a_stopped_redis_costs_little_and_a_missed_invalidation_is_made_up_for",
    ),
    "no fall-back": Mutation(
        "app/queued_writes.py",
        "            return await self._direct.create(item)\n        return Receipt",
        "            raise\n        return Receipt",
        "test_queue.py::test_a_stopped_broker_means_a_direct_write",
    ),
    "an idempotency key means two things": Mutation(
        "app/crud.py",
        "if stored.fingerprint != item.fingerprint:",
        "if stored.id != item.id:",
        "test_queue.py::test_an_idempotency_key_is_answered_by_the_database",
    ),
    "a bad item takes its batch with it": Mutation(
        "app/writes.py",
        "content_errors=(ContentRefused,)",
        "content_errors=()",
        "test_queue.py::test_a_bad_item_dies_alone",
    ),
    "no bound on those who wait": Mutation(
        "app/batching.py",
        "if len(self._waiting) >= self._max_waiting:",
        "if len(self._waiting) < 0:",
        "test_batching.py::test_too_many_waiting_callers_are_refused_at_once",
    ),
    "no bound on requests in progress": Mutation(
        "app/admission.py",
        "if self._inside >= self._limit and",
        "if self._inside < 0 and",
        "test_admission.py::test_what_is_too_much_is_refused_and_the_rest_is_served",
    ),
    "late callers join a trip that has left": Mutation(
        "app/batching.py",
        "        deliver(passengers, results)\n",
        "        late = list(self._waiting)\n        self._waiting.clear()\n"
        "        deliver([*passengers, *late], [*results, *results[:1] * len(late)])\n",
        "test_batching.py::test_a_caller_joins_only_a_trip_that_has_not_left",
    ),
    "no deadline for the database": Mutation(
        "app/db.py",
        "timeout=self._timeout)",
        "timeout=None)",
        "test_outage.py::test_the_client_is_told_and_the_service_recovers[frozen]",
    ),
    "no connection budget": Mutation(
        "app/config.py",
        "if needed > self.db_max_connections:",
        "if needed < 0:",
        "test_config.py::test_the_connection_budget_is_kept",
    ),
    "a chunked body of any length": Mutation(
        "app/body_limit.py",
        "if received > self._limit:",
        "if received < 0:",
        "test_items.py::test_a_huge_body_is_refused",
    ),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fullest variant, with its .venv."""
    return install(render(tmp_path_factory.mktemp("original"), project_slug="mutated-service"))


@pytest.fixture(scope="module")
def servers(original: Path) -> Iterator[dict[str, str]]:
    """The addresses of the servers that the tests of the rendered project need."""
    command = [str(original / ".venv/bin/python"), "-m", "tests.stack", "sh", "-c", "env; exec cat"]
    with subprocess.Popen(
        command, cwd=original, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.strip().partition("=")
            if name.startswith("TEST_"):
                found[name] = value
            if len(found) == 3:
                break
        yield found
        # The end of its input ends the command, and with it the servers.
        process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
def test_the_guard_is_needed(original: Path, servers: dict[str, str], tmp_path: Path, mutation: Mutation) -> None:
    mutant = tmp_path / "mutant"
    shutil.copytree(original, mutant, ignore=shutil.ignore_patterns(".venv"))
    source = mutant / mutation.file
    text = source.read_text(encoding="utf-8")
    assert text.count(mutation.line) == 1, f"{mutation.file} has changed: find the line that guards this now"
    source.write_text(text.replace(mutation.line, mutation.replacement), encoding="utf-8")
    done = subprocess.run(
        [str(original / ".venv/bin/python"), "-m", "pytest", "-q", f"tests/{mutation.test}"],
        cwd=mutant,
        env=clean_environment() | servers,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == TESTS_FAILED, done.stdout + done.stderr
    assert "FAILED tests/" in done.stdout, done.stdout
