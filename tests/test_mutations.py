"""Each guarantee has a mutation: without its line, a test of the rendered project fails for the right reason.

That the same tests pass with all lines in place is shown where they run as a whole, in tests/test_stack.py.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import clean_environment, docker_is_there, install
from tests.variants import core_variants, render

type Servers = tuple[str, ...]
type Urls = dict[str, str]

NONE: Servers = ()
CACHE: Servers = ("REDIS_URL",)
DATABASE: Servers = ("DATABASE_URL",)
QUEUE: Servers = ("DATABASE_URL", "BROKER_URL")


class Mutation(NamedTuple):
    """A guarantee, the text that gives it, what takes its place, and the test that fails then, with which message.

    The test runs without a server, or with those of `servers`.
    """

    guarantee: str
    file: str
    text: str
    instead: str
    caught_by: str
    message: str
    servers: Servers = NONE


MUTATIONS = [
    Mutation(
        "a caller joins only a trip that has not left",
        "app/batching.py",
        "        deliver(passengers, results)\n",
        "        late = [self._waiting.popleft() for _ in range(len(self._waiting))]\n"
        "        deliver([*passengers, *late], [*results, *results[:1] * len(late)])\n",
        "test_batching.py::test_a_caller_joins_only_a_trip_that_has_not_left",
        "assert ('old', 'old') == ('old', 'new')",
    ),
    Mutation(
        "a bounded number waits",
        "app/batching.py",
        "        if len(self._waiting) >= self._max_waiting:\n            raise Overloaded\n",
        "",
        "test_batching.py::test_too_many_waiting_callers_are_refused_at_once",
        "TimeoutError",
    ),
    Mutation(
        "a caller that cannot use its result does not keep the others from theirs",
        "app/batching.py",
        '            logger.exception("a result could not be used")\n            ticket.cancel()\n',
        "            raise\n",
        "test_batching.py::test_a_ticket_that_fails_takes_no_other_with_it",
        "TimeoutError",
    ),
    Mutation(
        "a caller that went away does not end the trip",
        "app/batching.py",
        "        return await future\n",
        "        try:\n"
        "            return await future\n"
        "        except asyncio.CancelledError:\n"
        "            if self._trips:\n"
        "                self._trips.cancel()\n"
        "            raise\n",
        "test_batching.py::test_a_caller_that_goes_away_disturbs_nobody",
        "CancelledError",
    ),
    Mutation(
        "a caller that went away before the departure does not travel",
        "app/batching.py",
        "            if not ticket.done():\n                passengers.append((item, ticket))\n",
        "            passengers.append((item, ticket))\n",
        "test_batching.py::test_a_caller_that_goes_away_disturbs_nobody",
        "who left before the departure does not travel",
    ),
    Mutation(
        "one bad item of a batch fails alone",
        "app/batching.py",
        "            if len(passengers) > 1:\n"
        "                for passenger in passengers:\n"
        "                    await self._run_trip([passenger])\n"
        "                return\n"
        "            results = [error]\n",
        "            results = [error] * len(passengers)\n",
        "test_batching.py::test_one_bad_item_fails_alone",
        "== 1",
    ),
    Mutation(
        "a drain waits for every trip",
        "app/batching.py",
        "        while self._trips is not None:\n",
        "        while False:\n",
        "test_batching.py::test_drain_waits_for_everything_that_was_accepted",
        "assert not True",
    ),
    Mutation(
        "a shutdown waits for what was accepted",
        "app/main.py",
        "            stack.push_async_callback(writer.drain)\n",
        "",
        "test_writes.py::test_a_shutdown_waits_for_what_was_accepted",
        "== 0",
    ),
    Mutation(
        "a write with an unclear end invalidates",
        "app/writes.py",
        "        try:\n            return await self._database.write(work)\n        finally:\n",
        "        result = await self._database.write(work)\n        try:\n            return result\n"
        "        finally:\n",
        "test_writes.py::test_a_write_with_an_unclear_end_is_a_change",
        "assert 0 == 3",
    ),
    Mutation(
        "a write is answered after its invalidation",
        "app/writes.py",
        "                await tell()\n",
        "                __import__('asyncio').ensure_future(tell())\n",
        "test_writes.py::test_a_write_is_answered_after_its_change_was_told",
        "its change is not told yet",
    ),
    Mutation(
        "an item is inserted once, in SQLite",
        "app/crud.py",
        "sqlite.insert(Item).values(rows).on_conflict_do_nothing()",
        "sqlite.insert(Item).values(rows)",
        "test_queue.py::test_an_unconfirmed_item_that_did_arrive_is_stored_once",
        "items.id')] == []",
    ),
    Mutation(
        "an item is inserted once, in PostgreSQL",
        "app/crud.py",
        "select(*rows.c)).on_conflict_do_nothing()",
        "select(*rows.c))",
        "test_queue.py::test_an_unconfirmed_item_that_did_arrive_is_stored_once",
        "items_pkey\"')] == []",
        DATABASE,
    ),
    Mutation(
        "a reader without a generation gets no finished answer",
        "app/reads.py",
        "            self._finished = answer\n",
        "        self._finished = answer\n",
        "test_reads.py::test_a_read_joins_only_a_run_that_has_not_begun",
        "assert {b'1'} == {b'2'}",
    ),
    Mutation(
        "an answer for one client is not shared",
        "app/reads.py",
        "        if answer.personal:\n",
        "        if answer.personal and not answer.body:\n",
        "test_reads.py::test_a_personal_answer_is_not_shared",
        "assert {b'1'} == {b'1', b'2', b'3'}",
    ),
    Mutation(
        "a bounded number of requests is in progress",
        "app/admission.py",
        "        return self._inside >= self._limit\n",
        "        return False\n",
        "test_admission.py::test_what_is_too_much_is_refused_and_the_rest_is_served",
        "TimeoutError",
    ),
    Mutation(
        "a refusal keeps the order of the answers",
        "app/server.py",
        "            and self.cycle.response_complete\n",
        "",
        "test_server.py::test_answers_keep_the_order_of_the_requests",
        "assert b' 201 ' in b'HTTP/1.1 503",
    ),
    Mutation(
        "nothing is shared that may be personal",
        "app/reads.py",
        "        if parameters is None or is_personal(scope):\n",
        "        if parameters is None:\n",
        "test_server.py::test_what_may_be_personal_is_left_to_the_application",
        "assert b'x-cache: bypass' in",
    ),
    Mutation(
        "a pipeline that broke off is left alone",
        "app/server.py",
        "        if not self._connection.transport.is_closing():\n",
        "        if not self._cycle.disconnected:\n",
        "test_server.py::test_a_pipeline_that_breaks_off_takes_nothing_with_it",
        "a result could not be used",
    ),
    Mutation(
        "a read that the server shares is bounded, too",
        "app/server.py",
        "        self._admission.enter()\n",
        "",
        "test_server.py::test_a_shared_read_takes_a_place_while_it_waits",
        "assert set()",
    ),
    Mutation(
        "a connection that is in use stays open",
        "app/server.py",
        "        elif idle >= 0:\n            self._look_again_after(self.timeout_keep_alive - idle)\n",
        "        elif idle >= 0:\n            self.transport.close()\n",
        "test_server.py::test_a_connection_ends_when_it_was_idle_and_not_before",
        "assert 0.9 < ",
    ),
    Mutation(
        "an idempotency key means one request",
        "app/crud.py",
        "    if stored.fingerprint != item.fingerprint:\n",
        "    if stored.id != item.id:\n",
        "test_queue.py::test_an_idempotency_key_is_answered_by_the_database",
        "(201, 201, 201) == (201, 201, 422)",
        QUEUE,
    ),
    Mutation(
        "a chunked body is bounded",
        "app/body_limit.py",
        "                    receive = self._count(receive)\n",
        "                    pass\n",
        "test_items.py::test_a_huge_body_is_refused",
        "== 413",
    ),
    Mutation(
        "the connections fit what the database allows",
        "app/config.py",
        "        if needed > self.db_max_connections:\n",
        "        if needed > 10 * self.db_max_connections:\n",
        "test_config.py::test_the_connection_budget_is_kept",
        "DID NOT RAISE",
    ),
    Mutation(
        "the connections of the workers count",
        "app/config.py",
        "        needed += writers\n",
        "",
        "test_config.py::test_the_connection_budget_counts_every_process",
        "DID NOT RAISE",
    ),
    Mutation(
        "without a broker an item is stored directly",
        "app/queued_writes.py",
        "            return await self._direct.create(item)\n        return Receipt(item, stored=False)\n",
        "            raise\n        return Receipt(item, stored=False)\n",
        "test_queue.py::test_the_service_starts_without_a_broker",
        "assert 500 == 201",
    ),
    Mutation(
        "without a database a keyed item is queued",
        "app/queued_writes.py",
        "        except DatabaseUnavailable as database_unavailable:\n            try:\n",
        "        except DatabaseUnavailable as database_unavailable:\n            raise\n            try:\n",
        "test_queue.py::test_without_a_database_everything_is_queued",
        "assert 503 == 202",
        QUEUE,
    ),
    Mutation(
        "an answer is kept with the generation from before the query",
        "app/reads.py",
        '            await scopes[0]["state"]["cache"].keep(self._key, answer, self._generation)\n',
        '            cache = scopes[0]["state"]["cache"]\n'
        "            after = (await cache.find(self._key)).generation\n"
        "            await cache.keep(self._key, answer, after)\n",
        "test_cache.py::test_a_slow_reader_cannot_resurrect_an_old_list",
        "assert (b'1', 'hit') == (b'2', 'miss')",
        CACHE,
    ),
    Mutation(
        "an answer of an older generation does not count",
        "app/cache.py",
        "    if value is None or not value.startswith(generation):\n",
        "    if value is None:\n",
        "test_cache.py::test_an_invalidation_ends_everything_kept",
        "assert Answer(",
        CACHE,
    ),
    Mutation(
        "a generation never repeats",
        "app/cache.py",
        "    return secrets.token_bytes(16)\n",
        "    return bytes(16)\n",
        "test_cache.py::test_a_lost_generation_ends_everything_kept",
        "assert Answer(",
        CACHE,
    ),
    Mutation(
        "a write invalidates",
        "app/main.py",
        "                on_change.append(cache.invalidate)\n",
        "",
        "test_cache.py::test_every_write_ends_what_is_kept",
        "assert [] == ['new']",
        CACHE,
    ),
    Mutation(
        "a process that owes an invalidation does not ask the cache",
        "app/cache.py",
        "        if self._missed_invalidations or self._asleep():\n",
        "        if self._asleep():\n",
        "test_cache.py::test_a_stopped_redis_costs_little_and_a_missed_invalidation_is_made_up_for",
        "the invalidation is still owed",
        CACHE,
    ),
    Mutation(
        "an owed invalidation is made up for",
        "app/cache.py",
        "            await self._redis.set(GENERATION, new_generation())\n            # A write that was missed",
        "            await self.ping()\n            # A write that was missed",
        "test_cache.py::test_a_stopped_redis_costs_little_and_a_missed_invalidation_is_made_up_for",
        "assert Answer(",
        CACHE,
    ),
    Mutation(
        "a trip to the database has a deadline",
        "app/db.py",
        "asyncio.wait([attempt], timeout=self._timeout)",
        "asyncio.wait([attempt], timeout=10 * self._timeout)",
        "test_outage.py::test_a_trip_has_a_deadline",
        "< 1",
        DATABASE,
    ),
    Mutation(
        "202 means that the broker confirmed",
        "app/broker.py",
        "publisher_confirms=True, on_return_raises=True",
        "publisher_confirms=False",
        "test_queue.py::test_a_frozen_broker_means_a_direct_write_within_the_deadline",
        "assert 202 == 201",
        QUEUE,
    ),
    Mutation(
        "202 means that a queue took the message",
        "app/broker.py",
        "publisher_confirms=True, on_return_raises=True",
        "publisher_confirms=True",
        "test_queue.py::test_a_message_that_no_queue_takes_is_no_confirm",
        "DID NOT RAISE",
        QUEUE,
    ),
    Mutation(
        "a confirm has a deadline",
        "app/broker.py",
        "            async with asyncio.timeout(self._deadline):\n                await exchange.publish(",
        "            async with asyncio.timeout(self._deadline + 1):\n                await exchange.publish(",
        "test_queue.py::test_a_frozen_broker_means_a_direct_write_within_the_deadline",
        "< 1",
        QUEUE,
    ),
    Mutation(
        "a message is acknowledged after its task",
        "app/tasks.py",
        "    task_acks_late=True,\n",
        "",
        "test_queue.py::test_a_killed_worker_loses_nothing",
        "TimeoutError",
        QUEUE,
    ),
    Mutation(
        "the message of a killed process returns to the queue",
        "app/tasks.py",
        "    task_reject_on_worker_lost=True,\n",
        "",
        "test_queue.py::test_a_killed_process_of_a_worker_loses_nothing",
        "TimeoutError",
        QUEUE,
    ),
    Mutation(
        "the message of a failed task becomes a dead letter",
        "app/tasks.py",
        "    task_acks_on_failure_or_timeout=False,\n",
        "",
        "test_queue.py::test_a_message_that_no_worker_can_read_becomes_a_dead_letter",
        "assert (0, 0) == (0, 1)",
        QUEUE,
    ),
    Mutation(
        "an item that the database refuses does not take others with it",
        "app/writes.py",
        "content_errors=(ContentRefused,)",
        "content_errors=()",
        "test_queue.py::test_a_bad_item_dies_alone",
        "assert [('good', ",
        DATABASE,
    ),
    Mutation(
        "an item that the database refuses becomes a dead letter",
        "app/tasks.py",
        "                case ContentRefused():\n                    refused.append((item, str(outcome)))\n",
        "                case ContentRefused():\n                    pass\n",
        "test_queue.py::test_the_task_stores_and_sends_what_is_refused_to_the_dead_letters",
        "assert (0, 0) == (0, 2)",
        QUEUE,
    ),
    Mutation(
        "a task ends after the confirm of its dead letter",
        "app/tasks.py",
        '    broker_transport_options={"confirm_publish": True},\n',
        "",
        "test_queue.py::test_a_task_ends_after_the_confirm_of_its_dead_letter",
        "the broker did not confirm yet",
        QUEUE,
    ),
    Mutation(
        "a task waits for the database",
        "app/tasks.py",
        "                    absences.append((item, outcome))\n",
        "                    pass\n",
        "test_queue.py::test_the_worker_waits_for_the_database",
        "assert not True",
        DATABASE,
    ),
    Mutation(
        "a task that waited long enough goes back to the queue",
        "app/tasks.py",
        "raise Reject(error, requeue=True)",
        "raise Reject(error, requeue=False)",
        "test_queue.py::test_a_task_that_waited_long_enough_goes_back_to_the_queue",
        "assert False",
        DATABASE,
    ),
    Mutation(
        "looking at dead letters does not use them up",
        "app/broker.py",
        '{"x-queue-type": "quorum", "x-delivery-limit": -1}',
        '{"x-queue-type": "quorum"}',
        "test_queue.py::test_a_poison_item_in_a_batch_is_put_aside_by_a_worker",
        "assert (0, 0) == (0, 1)",
        QUEUE,
    ),
]


class Verdict(NamedTuple):
    """How a run of tests ended: pytest's exit status, and why some failed."""

    status: int
    reasons: str
    output: str


def judge(project: Path, mutation: Mutation, urls: Urls) -> Verdict:
    """Take the text of a guarantee out of a project, and run the test that must notice it."""
    file = project / mutation.file
    source = file.read_text(encoding="utf-8")
    assert source.count(mutation.text) == 1, f"{mutation.file} must hold this once: {mutation.text}"
    file.write_text(source.replace(mutation.text, mutation.instead), encoding="utf-8")
    report = project / "report.xml"
    arguments = ["-m", "pytest", "-x", "-q", "-p", "anyio", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = clean_environment() | {f"TEST_{name}": url for name, url in urls.items()}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # The first run compiles the dependencies for all that follow.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [str(project / ".venv/bin/python"), *arguments, f"tests/{mutation.caught_by}"],
        cwd=project,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    cases = ET.parse(report) if report.exists() else ET.ElementTree(ET.Element("nothing"))
    failures = [line for failure in cases.iter("failure") for line in (failure.text or "").splitlines()]
    # An E marks what was wrong, and a bar the parts of an exception group; the other lines quote the source.
    reasons = "\n".join(line for line in failures if line.lstrip().startswith(("E ", "| ")))
    return Verdict(done.returncode, reasons, done.stdout)


def copy_of(project: Path, directory: Path) -> Path:
    """Copy a project, and lend the copy the dependencies."""
    copy = directory / project.name
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    (copy / ".venv").symlink_to(project / ".venv")
    return copy


HOLD = "import json, os, sys; print(json.dumps(dict(os.environ)), flush=True); sys.stdin.read()"


@contextmanager
def servers_of(project: Path) -> Iterator[Urls]:
    """Run the servers of a project as `make test-stack` does, and yield their addresses."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stack", sys.executable, "-c", HOLD],
        cwd=project,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        told = next((line for line in process.stdout if line.startswith("{")), "{}")
        yield {name: json.loads(told)[f"TEST_{name}"] for name in {*CACHE, *QUEUE}}


def selected(request: pytest.FixtureRequest) -> set[object]:
    """Return the mutations that this run of the tests needs."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    return {function.callspec.params["mutation"] for function in functions if function.module is request.module}


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Mutation, Future[Verdict]]]:
    """The verdict on each mutation.

    Three run at a time: one without a server, one with the broker, one with another database of the same server.
    """
    original = render(tmp_path_factory.mktemp("original"), **core_variants()[0])
    needed = selected(request)
    mutations = [mutation for mutation in MUTATIONS if mutation in needed]
    verdicts: dict[Mutation, Future[Verdict]] = {}
    with ExitStack() as stack:
        lanes = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(3)]
        lane_of = {NONE: lanes[0], QUEUE: lanes[1], CACHE: lanes[2], DATABASE: lanes[2]}

        def submit(servers: Servers, urls: Urls) -> None:
            for mutation in mutations:
                if mutation.servers == servers:
                    copy = copy_of(original, tmp_path_factory.mktemp("copy"))
                    verdicts[mutation] = lane_of[servers].submit(judge, copy, mutation, urls)

        starting = None
        if any(mutation.servers for mutation in mutations) and docker_is_there():
            starting = lanes[1].submit(stack.enter_context, servers_of(original))
        install(original)
        submit(NONE, {})
        if starting is not None:
            urls = starting.result()
            submit(QUEUE, {name: urls[name] for name in QUEUE})
            submit(CACHE, {name: urls[name] for name in CACHE})
            server, _, _ = urls["DATABASE_URL"].rpartition("/")
            submit(DATABASE, {"DATABASE_URL": f"{server}/postgres"})
        yield verdicts
        for verdict in verdicts.values():
            verdict.cancel()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guarantee)
def test_without_its_line_a_guarantee_is_missed(
    request: pytest.FixtureRequest, verdicts: dict[Mutation, Future[Verdict]], mutation: Mutation
) -> None:
    if mutation.servers:
        request.getfixturevalue("docker")
    verdict = verdicts[mutation].result()
    assert verdict.status == pytest.ExitCode.TESTS_FAILED, verdict.output
    assert mutation.message in verdict.reasons, verdict.output
