"""Each guarantee has a mutation: without its line, a test of the rendered project fails for the right reason.

That the same tests pass with all lines in place is shown where they run as a whole, in tests/test_stack.py.
"""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest

from tests.conftest import PATIENCE, Urls, clean_environment, docker_is_there, install, servers_of
from tests.variants import core_variants, render
from tests.warm_pytest import Run, WarmPytest

type Servers = tuple[str, ...]

NONE: Servers = ()
CACHE: Servers = ("REDIS_URL",)
DATABASE: Servers = ("DATABASE_URL",)
QUEUE: Servers = ("DATABASE_URL", "BROKER_URL")


class Mutation(NamedTuple):
    """A guarantee, the text that gives it, what takes its place, and the test that fails then, with which message.

    The file is one of the project, or of a package that it uses.
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
        "a caller joins only a flush that has not begun",
        "app/highload/batching.py",
        "        deliver(batch, results)\n",
        "        late = [self._waiting.popleft() for _ in range(len(self._waiting))]\n"
        "        deliver([*batch, *late], [*results, *results[:1] * len(late)])\n",
        "highload/test_batching.py::test_a_caller_joins_only_a_flush_that_has_not_begun",
        "assert ('old', 'old') == ('old', 'new')",
    ),
    Mutation(
        "a bounded number waits",
        "app/highload/batching.py",
        "        if len(self._waiting) >= self._max_waiting:\n            raise Overloaded\n",
        "",
        "highload/test_batching.py::test_too_many_waiting_callers_are_refused_at_once",
        "TimeoutError",
    ),
    Mutation(
        "a caller that cannot use its result does not keep the others from theirs",
        "app/highload/batching.py",
        '            logger.exception("a result could not be used")\n            waiter.cancel()\n',
        "            raise\n",
        "highload/test_batching.py::test_a_waiter_that_fails_takes_no_other_with_it",
        "TimeoutError",
    ),
    Mutation(
        "a caller that went away does not end the flush",
        "app/highload/batching.py",
        "        return await future\n",
        "        try:\n"
        "            return await future\n"
        "        except asyncio.CancelledError:\n"
        "            if self._flushing:\n"
        "                self._flushing.cancel()\n"
        "            raise\n",
        "highload/test_batching.py::test_a_caller_that_goes_away_disturbs_nobody",
        "CancelledError",
    ),
    Mutation(
        "a caller that went away before the flush is not in it",
        "app/highload/batching.py",
        "            if not first[1].done():\n                batch.append(first)\n",
        "            batch.append(first)\n",
        "highload/test_batching.py::test_a_caller_that_goes_away_disturbs_nobody",
        "who left before the flush is not sent",
    ),
    Mutation(
        "one bad entry of a batch fails alone",
        "app/highload/batching.py",
        "            if len(batch) > 1:\n"
        "                for single in batch:\n"
        "                    await self._flush([single])\n"
        "                return\n"
        "            results = [error]\n",
        "            results = [error] * len(batch)\n",
        "highload/test_batching.py::test_one_bad_entry_fails_alone",
        "== 1",
    ),
    Mutation(
        "a drain waits for every flush",
        "app/highload/batching.py",
        "        while self._flushing is not None:\n",
        "        while False:\n",
        "highload/test_batching.py::test_drain_waits_for_everything_that_was_accepted",
        "assert not True",
    ),
    Mutation(
        "a shutdown waits for what was accepted",
        "app/main.py",
        "            stack.push_async_callback(storage.drain)\n",
        "",
        "test_items_shutdown.py::test_a_shutdown_waits_for_what_was_accepted",
        "== 0",
    ),
    Mutation(
        "nobody changes a row of SQLite between its comparison and its change",
        "app/highload/statements.py",
        "update(table).where(one).values(created_at=table.c.created_at).returning(*self._columns)",
        "rows.where(one)",
        "highload/test_etags.py::test_nobody_changes_a_row_between_its_comparison_and_its_end",
        "DID NOT RAISE",
    ),
    Mutation(
        "nobody changes a row of PostgreSQL between its comparison and its change",
        "app/highload/statements.py",
        "rows.where(one).with_for_update(key_share=True, of=table)",
        "rows.where(one)",
        "highload/test_etags.py::test_nobody_changes_a_row_between_its_comparison_and_its_end",
        "DID NOT RAISE",
        DATABASE,
    ),
    Mutation(
        "a row in another state is not changed",
        "app/highload/repository.py",
        "            raise PreconditionFailed\n",
        "            return\n",
        "highload/test_etags.py::test_a_change_that_is_refused_ends_no_kept_answer",
        "DID NOT RAISE",
    ),
    Mutation(
        "a change that runs once more is not refused for what it has made",
        "app/highload/repository.py",
        "if tag not in made and not only_if.allow(tag):",
        "if not only_if.allow(tag):",
        "highload/test_etags.py::test_a_change_that_runs_once_more_finds_what_it_has_made",
        "PreconditionFailed",
    ),
    Mutation(
        "a new row is shown as it is stored",
        "app/highload/columns.py",
        "return column.name in STAMPS or type(column.type) in KEPT_AS_GIVEN",
        "return True",
        "highload/test_resource.py::test_every_type_is_inserted_fetched_and_listed[SQLite]",
        "so the entity tag is the same, too",
    ),
    Mutation(
        "a route that cannot see If-Match does not ignore it",
        "app/highload/http/expectations.py",
        "if route is None or sees_if_match(route.dependant):",
        "if True:",
        "highload/test_etags.py::test_a_route_that_cannot_see_if_match_does_not_ignore_it",
        "assert 200 == 412",
    ),
    Mutation(
        "a JSON Patch is not taken for the document",
        "app/highload/http/expectations.py",
        'if declared is None or given in types_of(scope["method"], declared):',
        "if True:",
        "highload/test_standards.py::test_a_body_of_another_type_is_refused_and_the_right_one_named",
        "AssertionError: ('POST', 'application/merge-patch+json')",
    ),
    Mutation(
        "no cache in between gives one client what a guard let another one see",
        "app/highload/reads/sharing.py",
        "return ASK_BEFORE_USE if route.not_shared >= CREDENTIALS else PRIVATE",
        "return ASK_BEFORE_USE",
        "highload/test_standards.py::test_an_answer_says_what_caches_may_do",
        "assert ['no-cache'] == ['private, no-cache']",
    ),
    Mutation(
        "no cache stores an error",
        "app/highload/http/finishing.py",
        "if (status >= FIRST_ERROR or method not in READING)",
        "if (method not in READING)",
        "highload/test_standards.py::test_an_answer_says_what_caches_may_do",
        "assert [] == ['no-store']",
    ),
    Mutation(
        "a link to the next page keeps the other parameters",
        "app/highload/pagination.py",
        "urlencode([*others, (CURSOR, pages[0])])",
        "urlencode([(CURSOR, pages[0])])",
        "highload/test_standards.py::test_a_page_links_to_the_next",
        "assert False",
    ),
    Mutation(
        "a quoted key and the same without quotes are one",
        "app/highload/idempotency.py",
        'key = re.sub(r"\\\\(.)", r"\\1", quoted[1])',
        "pass",
        "highload/test_standards.py::test_a_quoted_key_is_the_key_without_its_quotes",
        "== 'k'",
    ),
    Mutation(
        "a write with an unclear end invalidates",
        "app/highload/writes/group_commit.py",
        "            commits += 1\n",
        "",
        "highload/test_writes.py::test_a_write_with_an_unclear_end_is_a_change",
        "assert 0 == 3",
    ),
    Mutation(
        "a deletion that ran again invalidates",
        "app/highload/writes/group_commit.py",
        " or commits > 1:",
        ":",
        "highload/test_writes.py::test_a_deletion_that_ran_again_is_a_change",
        "assert (0, []) == (0, [['notes']])",
    ),
    Mutation(
        "a write is answered after its invalidation",
        "app/highload/writes/group_commit.py",
        "        if changed(result) or commits > 1:\n            await self._end(ends)\n",
        "        if changed(result):\n            __import__('asyncio').ensure_future(self._end(ends))\n",
        "highload/test_writes.py::test_a_write_is_answered_after_its_change_was_told",
        "its change is not told yet",
    ),
    Mutation(
        "an item is inserted once, in SQLite",
        "app/highload/statements.py",
        'values(list(rows)).on_conflict_do_nothing(index_elements=["id"])',
        "values(list(rows))",
        "highload/test_queue.py::test_an_unconfirmed_row_that_did_arrive_is_stored_once",
        "highload_notes.id",
    ),
    Mutation(
        "an item is inserted once, in PostgreSQL",
        "app/highload/statements.py",
        '                .on_conflict_do_nothing(index_elements=["id"])\n',
        "",
        "highload/test_queue.py::test_an_unconfirmed_row_that_did_arrive_is_stored_once",
        "notes_pkey",
        DATABASE,
    ),
    Mutation(
        "a reader without a generation gets no finished answer",
        "app/highload/reads/sharing.py",
        "            self._finished = answer\n",
        "        self._finished = answer\n",
        "highload/test_reads.py::test_a_read_joins_only_a_run_that_has_not_begun",
        "assert {b'1'} == {b'2'}",
    ),
    Mutation(
        "an answer for one client is not shared",
        "app/highload/reads/sharing.py",
        "        if not foreseen or answer.is_personal(read.route.headers):\n",
        "        if not foreseen:\n",
        "highload/test_reads.py::test_a_personal_answer_is_not_shared",
        "assert {b'1'} == {b'2', b'3', b'4'}",
    ),
    Mutation(
        "a bounded number of requests is in progress",
        "app/highload/http/admission.py",
        "        return self._inside >= self._limit\n",
        "        return False\n",
        "highload/test_admission.py::test_what_is_too_much_is_refused_and_the_rest_is_served",
        "TimeoutError",
    ),
    Mutation(
        "an idempotency key means one request",
        "app/highload/statements.py",
        'if stored["fingerprint"] != row["fingerprint"] else',
        'if stored["id"] != row["id"] else',
        "test_items_queue.py::test_an_idempotency_key_is_answered_by_the_database",
        "(201, 201, 201) == (201, 201, 422)",
        QUEUE,
    ),
    Mutation(
        "a chunked body is bounded",
        "app/highload/http/body_limit.py",
        "                    receive = self._count(receive)\n",
        "                    pass\n",
        "test_items.py::test_a_huge_body_is_refused",
        "== 413",
    ),
    Mutation(
        "a flush belongs to no caller",
        "app/highload/batching.py",
        "create_task(self._flush_all(), context=Context())",
        "create_task(self._flush_all())",
        "highload/test_batching.py::test_a_flush_sees_no_context_of_a_caller",
        "assert {'one'} == {'nobody'}",
    ),
    Mutation(
        "services share a Redis and no answers",
        "app/highload/reads/cache.py",
        '    return "{" + name + "}:"\n',
        '    return "{cache}:"\n',
        "highload/test_cache.py::test_services_with_other_names_see_nothing_of_each_other",
        "assert b'",
        CACHE,
    ),
    Mutation(
        "the connections fit what the database allows",
        "app/config.py",
        "        if planned > limit:\n",
        "        if planned > 10 * limit:\n",
        "test_config.py::test_the_connection_budget_is_kept",
        "DID NOT RAISE",
    ),
    Mutation(
        "the connections of the workers count",
        "app/config.py",
        "        planned += self.worker_replicas * self.worker_concurrency\n",
        "",
        "test_config.py::test_the_connection_budget_counts_every_process",
        "DID NOT RAISE",
    ),
    Mutation(
        "automatic workers fit what the database allows",
        "app/config.py",
        '            most = min(most, connections // (settings["api_replicas"] * settings["db_pool_size"]))\n',
        "",
        "test_config.py::test_auto_keeps_every_bound_on_any_machine",
        "DB_MAX_CONNECTIONS is 100",
    ),
    Mutation(
        "automatic workers are not more than may be written by hand",
        "app/config.py",
        "    settings, most = info.data, MOST_WORKERS\n",
        "    settings, most = info.data, 1000\n",
        "test_config.py::test_auto_keeps_every_bound_on_any_machine",
        "less than or equal to 64",
    ),
    Mutation(
        "automatic workers leave connections to the processes of the queue",
        "app/config.py",
        '            connections -= settings["worker_replicas"] * settings["worker_concurrency"]\n',
        "",
        "test_config.py::test_auto_keeps_every_bound_on_any_machine",
        "database connections, but DB_MAX_CONNECTIONS",
    ),
    Mutation(
        "without a broker an item is stored directly",
        "app/highload/writes/queued.py",
        "            receipt = await self._direct.create(row)\n",
        "            raise\n",
        "test_items_queue.py::test_the_service_starts_without_a_broker",
        "assert 500 == 201",
    ),
    Mutation(
        "without a database a keyed item is queued",
        "app/highload/writes/queued.py",
        "        except DatabaseUnavailable as database_unavailable:\n            try:\n",
        "        except DatabaseUnavailable as database_unavailable:\n            raise\n            try:\n",
        "test_items_queue.py::test_without_a_database_everything_is_queued",
        "assert 503 == 202",
        QUEUE,
    ),
    Mutation(
        "an answer is kept with the generation from before the query",
        "app/highload/reads/sharing.py",
        "            await self._reads.cache.keep(reads[0].key, answer, self._generation)\n",
        "            wanted = reads[0].key, reads[0].route.places(reads[0].scope)\n"
        "            after = (await self._reads.cache.find(wanted)).generation\n"
        "            await self._reads.cache.keep(reads[0].key, answer, after)\n",
        "highload/test_cache.py::test_a_slow_reader_cannot_resurrect_an_old_list",
        "assert (b'1', 'hit') == (b'2', 'miss')",
        CACHE,
    ),
    Mutation(
        "an answer of an older generation does not count",
        "app/highload/reads/cache.py",
        "    if value is None or not value.startswith(generation):\n",
        "    if value is None:\n",
        "highload/test_cache.py::test_an_invalidation_ends_everything_kept",
        "assert Answer(",
        CACHE,
    ),
    Mutation(
        "a generation never repeats",
        "app/highload/reads/cache.py",
        "    return secrets.token_bytes(TOKEN_BYTES)\n",
        "    return bytes(TOKEN_BYTES)\n",
        "highload/test_cache.py::test_a_lost_generation_ends_everything_kept",
        "assert Answer(",
        CACHE,
    ),
    Mutation(
        "a write invalidates",
        "app/highload/repository.py",
        "            await self.cache.invalidate(places)\n",
        "            pass\n",
        "test_items_cache.py::test_every_write_ends_what_is_kept",
        "assert [] == ['new']",
        CACHE,
    ),
    Mutation(
        "a process that owes an invalidation does not ask the cache",
        "app/highload/reads/cache.py",
        "        if self._missed or self._cooling_down():\n",
        "        if self._cooling_down():\n",
        "highload/test_cache.py::test_a_stopped_redis_costs_little_and_a_missed_invalidation_is_made_up_for",
        "the invalidation is still owed",
        CACHE,
    ),
    Mutation(
        "an owed invalidation is made up for",
        "app/highload/reads/cache.py",
        "            await self._renew(missed)\n",
        "            await self.ping()\n",
        "highload/test_cache.py::test_a_stopped_redis_costs_little_and_a_missed_invalidation_is_made_up_for",
        "assert Answer(",
        CACHE,
    ),
    Mutation(
        "a connection to Redis that was closed meanwhile is made anew",
        "app/highload/reads/cache.py",
        "        retry=Retry(NoBackoff(), 1, supported_errors=(LostConnection,)),\n",
        "        retry=Retry(NoBackoff(), 0),\n",
        "highload/test_cache.py::test_a_connection_that_was_closed_meanwhile_costs_nothing",
        "assert None == Answer(",
        CACHE,
    ),
    Mutation(
        "the text of an id has the slot of the id",
        "app/highload/generations.py",
        "int(text[-4:], 16)",
        "int(text[-3:], 16)",
        "highload/test_generations.py::test_every_spelling_of_an_id_has_the_same_places",
        "assert ('a/",
    ),
    Mutation(
        "after an error any node of a Redis Cluster is asked again",
        "app/highload/reads/cache.py",
        "            self.clients = self._any\n            raise\n",
        "            raise\n",
        "highload/test_cache.py::test_after_an_error_any_node_is_asked_again",
        "assert 1 > 1",
        CACHE,
    ),
    Mutation(
        "a host of the database that lets wait is asked last next time",
        "app/highload/database.py",
        "                first = (began + 1) % len(host)\n",
        "                pass\n",
        "highload/test_database.py::test_a_host_that_lets_wait_is_asked_last_next_time",
        "At index 1 diff: ['first', 'first'] != ['second', 'second']",
    ),
    Mutation(
        "whoever waits for a connection gets it in turn",
        "app/highload/turns.py",
        "        self._waiting.append(Waiting(reads, turn))\n",
        "        self._waiting.insert(len(self._waiting) % 2, Waiting(reads, turn))\n",
        "highload/test_database.py::test_whoever_waits_for_a_connection_gets_it_in_turn[SQLite]",
        "<= (2 * 60)",
    ),
    Mutation(
        "a schema that does more than to copy is left to pydantic",
        "app/highload/json_pages.py",
        'not schema.keys() <= MODEL or schema["custom_init"]',
        'schema["custom_init"]',
        "highload/test_json_pages.py::test_a_schema_that_does_more_is_left_to_pydantic",
        "assert not True",
    ),
    Mutation(
        "a page that PostgreSQL writes is the page that was asked for",
        "app/highload/json_pages.py",
        "        query = self._query(begins_after, conditions) if conditions else self._made[begins_after]\n",
        "        query = self._made[begins_after]\n",
        "highload/test_json_pages.py::test_pages_are_the_same_however_they_are_made[PostgreSQL]",
        "At index 0 diff: b'[{",
        DATABASE,
    ),
    Mutation(
        "a change that was given up does not happen later",
        "app/highload/database.py",
        "            return await run_work(self._engine.begin, work)\n",
        "            return await run_work(self._autocommit.connect, work)\n",
        "highload/test_database.py::test_a_change_that_was_given_up_does_not_happen_later",
        "assert 'late' == 'before'",
        DATABASE,
    ),
    Mutation(
        "a flush to the database has a deadline",
        "app/highload/database.py",
        "asyncio.wait([attempt], timeout=self._timeout)",
        "asyncio.wait([attempt])",
        "highload/test_database.py::test_a_trip_has_a_deadline",
        "TimeoutError",
        DATABASE,
    ),
    Mutation(
        "202 means that the broker confirmed",
        "app/highload/writes/publisher.py",
        "publisher_confirms=True, on_return_raises=True",
        "publisher_confirms=False",
        "highload/test_queue.py::test_a_frozen_broker_means_a_direct_write_within_the_deadline",
        "assert 202 == 201",
        QUEUE,
    ),
    Mutation(
        "202 means that a queue took the message",
        "app/highload/writes/publisher.py",
        "publisher_confirms=True, on_return_raises=True",
        "publisher_confirms=True",
        "highload/test_queue.py::test_a_message_that_no_queue_takes_is_no_confirm",
        "DID NOT RAISE",
        QUEUE,
    ),
    Mutation(
        "a confirm has a deadline",
        "app/highload/writes/publisher.py",
        "            async with asyncio.timeout(self._deadline):\n                await exchange.publish(",
        "            async with asyncio.timeout(100 * self._deadline):\n                await exchange.publish(",
        "highload/test_queue.py::test_a_frozen_broker_means_a_direct_write_within_the_deadline",
        "ReadTimeout",
        QUEUE,
    ),
    Mutation(
        "a message is acknowledged after its task",
        "app/highload/worker.py",
        '        "task_acks_late": True,\n',
        "",
        "highload/test_queue.py::test_a_killed_worker_loses_nothing",
        "TimeoutError",
        QUEUE,
    ),
    Mutation(
        "the message of a killed process returns to the queue",
        "app/highload/worker.py",
        '        "task_reject_on_worker_lost": True,\n',
        "",
        "highload/test_queue.py::test_a_killed_process_of_a_worker_loses_nothing",
        "TimeoutError",
        QUEUE,
    ),
    Mutation(
        "the message of a failed task becomes a dead letter",
        "app/highload/worker.py",
        '        "task_acks_on_failure_or_timeout": False,\n',
        "",
        "highload/test_queue.py::test_a_message_that_no_worker_can_read_becomes_a_dead_letter",
        "assert (0, 0) == (0, 1)",
        QUEUE,
    ),
    Mutation(
        "an item that the database refuses does not take others with it",
        "app/highload/writes/group_commit.py",
        "content_errors=(ContentRefused,)",
        "content_errors=()",
        "highload/test_queue.py::test_a_bad_row_dies_alone",
        "too many values to unpack",
        DATABASE,
    ),
    Mutation(
        "an item that the database refuses becomes a dead letter",
        "app/highload/worker.py",
        "                refused.append((row, outcome))\n",
        "                pass\n",
        "highload/test_queue.py::test_the_task_stores_and_sends_what_is_refused_to_the_dead_letters",
        "assert (0, 0) == (0, 2)",
        QUEUE,
    ),
    Mutation(
        "a task ends after the confirm of its dead letter",
        "app/highload/worker.py",
        '        "broker_transport_options": {"confirm_publish": True},\n',
        "",
        "highload/test_queue.py::test_a_task_ends_after_the_confirm_of_its_dead_letter",
        "the broker did not confirm yet",
        QUEUE,
    ),
    Mutation(
        "a task waits for the database",
        "app/highload/worker.py",
        "            if time.monotonic() >= deadline:\n",
        "            if time.monotonic() < deadline:\n",
        "highload/test_queue.py::test_the_worker_waits_for_the_database",
        "assert not True",
        DATABASE,
    ),
    Mutation(
        "a task that waited long enough goes back to the queue",
        "app/highload/worker.py",
        "raise Reject(error, requeue=True)",
        "raise Reject(error, requeue=False)",
        "highload/test_queue.py::test_a_task_that_waited_long_enough_goes_back_to_the_queue",
        "assert False",
        DATABASE,
    ),
    Mutation(
        "looking at dead letters does not use them up",
        "app/highload/writes/queue.py",
        '{"x-queue-type": "quorum", "x-delivery-limit": -1}',
        '{"x-queue-type": "quorum"}',
        "highload/test_queue.py::test_a_poison_row_in_a_batch_is_put_aside_by_a_worker",
        "assert (0, 0) == (0, 1)",
        QUEUE,
    ),
    Mutation(
        "a new row ends the lists",
        "app/highload/generations.py",
        "    return (ANYTHING, lists(table), *{slot(table, row_id) for row_id in returning})\n",
        "    return (ANYTHING, *{slot(table, row_id) for row_id in returning})\n",
        "highload/test_generations.py::test_a_write_ends_what_it_may_have_changed",
        "Extra items in the left set",
        CACHE,
    ),
    Mutation(
        "a row that comes back ends its slot",
        "app/highload/generations.py",
        "    return (ANYTHING, lists(table), *{slot(table, row_id) for row_id in returning})\n",
        "    return (ANYTHING, lists(table))\n",
        "highload/test_generations.py::test_a_row_that_comes_back_is_seen_before_its_deletion_is_told",
        "assert 1 == 3",
        CACHE,
    ),
    Mutation(
        "a keyed row is one that may come back",
        "app/highload/repository.py",
        'if row["fingerprint"] is not None)',
        "if False)",
        "test_items_cache.py::test_an_item_that_comes_back_ends_what_is_kept_of_it",
        "'hit' == 'miss'",
        CACHE,
    ),
    Mutation(
        "an insert tells also what another one has stored",
        "app/highload/writes/group_commit.py",
        "self._insert(connection, rows), self._ended_by_insert(rows))",
        "self._insert(connection, rows), self._ended_by_insert(rows), changed=lambda _: False)",
        "highload/test_writes.py::test_what_the_database_refuses_ends_nothing",
        "may not have told it yet",
    ),
    Mutation(
        "an answer that there is no row is not kept for long",
        "app/highload/repository.py",
        "            announce(self.resource.name, lists(self.resource.name))\n            return None\n",
        "            return None\n",
        "highload/test_generations.py::test_an_answer_that_there_is_no_row_is_not_kept",
        "['miss', 'hit'] == ['miss', 'miss']",
        CACHE,
    ),
    Mutation(
        "a change ends the slot of its row",
        "app/highload/generations.py",
        "    return (ANYTHING, lists(table), *rows)\n",
        "    return (ANYTHING, lists(table))\n",
        "highload/test_generations.py::test_a_write_ends_what_it_may_have_changed",
        "Extra items in the left set",
        CACHE,
    ),
    Mutation(
        "a write to unknown rows ends all of them",
        "app/highload/generations.py",
        "(slot_of(self.table, value), all_rows(self.table), *others)",
        "(slot_of(self.table, value), *others)",
        "highload/test_generations.py::test_a_write_ends_what_it_may_have_changed",
        "Extra items in the left set",
        CACHE,
    ),
    Mutation(
        "every write ends what depends on anything",
        "app/highload/generations.py",
        "    return (ANYTHING, lists(table), *rows)\n",
        "    return (lists(table), *rows)\n",
        "highload/test_generations.py::test_a_write_ends_what_it_may_have_changed",
        "Extra items in the left set",
        CACHE,
    ),
    Mutation(
        "a write that a foreign key passes on ends what it reaches",
        "app/highload/generations.py",
        "        others = tuple(map(lists, self.also)) if self.also else ()\n",
        "        others: tuple[str, ...] = ()\n",
        "highload/test_generations.py::test_a_write_ends_what_it_may_have_changed",
        "Extra items in the left set",
        CACHE,
    ),
    Mutation(
        "what is no id depends on anything",
        "app/highload/generations.py",
        "            return (ANYTHING,)\n",
        "            return ()\n",
        "highload/test_generations.py::test_what_is_no_id_depends_on_anything",
        "assert () == ('*',)",
        CACHE,
    ),
    Mutation(
        "an answer of more than its route names is not kept",
        "app/highload/reads/sharing.py",
        "        return table is None\n",
        "        return True\n",
        "highload/test_generations.py::test_an_answer_of_more_than_its_route_names_is_not_kept",
        "'hit' != 'miss'",
        CACHE,
    ),
    Mutation(
        "a cursor that no page gave fills no cache",
        "app/highload/repository.py",
        "a page of its own.\n            announce_no_key()\n",
        "a page of its own.\n            pass\n",
        "highload/test_cache.py::test_a_cursor_that_no_page_gave_fills_no_cache",
        "Extra items in the left set",
        CACHE,
    ),
    Mutation(
        "a page begins behind the row of its cursor",
        "app/highload/repository.py",
        "            rows = rows[1:]\n",
        "            pass\n",
        "highload/test_resource.py::test_pages_under_a_condition_follow_each_other",
        "assert [6, 4, 2, 2, 0] == [6, 4, 2, 0]",
    ),
    Mutation(
        "a place that was lost begins with one token for all",
        "app/highload/reads/cache.py",
        "pipeline.set(self._key_of(place), token, nx=True, get=True)",
        "pipeline.set(self._key_of(place), token, get=True)",
        "highload/test_cache.py::test_two_processes_begin_with_the_same_generation",
        "assert b",
        CACHE,
    ),
    Mutation(
        "a generation is made of the tokens of all places",
        "app/highload/reads/cache.py",
        'b"".join([tokens[place] for place in places])',
        'b"".join([tokens[place] for place in [*places][:1]])',
        "highload/test_generations.py::test_an_answer_of_other_places_is_not_accepted[earlier0-later0]",
        "is None",
        CACHE,
    ),
    Mutation(
        "a parameter of a source is one of the path",
        "app/highload/reads/shared.py",
        "        if source.parameter is not None and source.parameter not in context.param_convertors:\n",
        "        if False:\n",
        "highload/test_generations.py::test_a_parameter_that_is_not_in_the_path_is_refused",
        "DID NOT RAISE",
        CACHE,
    ),
    Mutation(
        "a write that changes nothing ends nothing",
        "app/highload/writes/group_commit.py",
        "        if changed(result) or commits > 1:\n",
        "        if True:\n",
        "test_items_cache.py::test_a_write_that_changes_nothing_ends_nothing",
        "assert 'miss' == 'hit'",
        CACHE,
    ),
    Mutation(
        "what is rolled back ends nothing",
        "app/highload/writes/group_commit.py",
        "            if commits:\n",
        "            if True:\n",
        "highload/test_writes.py::test_what_the_database_refuses_ends_nothing",
        "assert 2 == 0",
    ),
    Mutation(
        "another unique value is a conflict and not a repetition",
        "app/highload/statements.py",
        'values(list(rows)).on_conflict_do_nothing(index_elements=["id"])',
        "values(list(rows)).on_conflict_do_nothing()",
        "highload/test_references.py::test_what_the_database_refuses_is_named[SQLite]",
        "assert 200 == 409",
    ),
    Mutation(
        "a type that the databases do not keep alike is refused",
        "app/highload/resource.py",
        "            if reason := reason_to_refuse(column):\n",
        "            if (reason := reason_to_refuse(column)) and False:\n",
        "highload/test_resource.py::test_a_type_that_is_not_kept_alike_is_refused",
        "Regex pattern did not match",
    ),
    Mutation(
        "a column that nobody fills is refused",
        "app/highload/resource.py",
        "            if column.name not in filled_later or not column.nullable:\n",
        "            if False:\n",
        "highload/test_resource.py::test_a_column_that_nobody_fills_is_refused",
        "DID NOT RAISE",
    ),
    Mutation(
        "a field that is no column is refused",
        "app/highload/resource.py",
        "                if name not in self.table.columns:\n",
        "                if False:\n",
        "highload/test_resource.py::test_a_field_that_is_no_column_is_refused",
        "DID NOT RAISE",
    ),
    Mutation(
        "what the service makes is not asked of a client",
        "app/highload/resource.py",
        "                if name in schema.model_fields:\n",
        "                if False:\n",
        "highload/test_resource.py::test_what_the_service_makes_is_not_asked_of_a_client",
        "DID NOT RAISE",
    ),
    Mutation(
        "a column that only changes fill is null before",
        "app/highload/resource.py",
        "            column.name: lambda _: None\n            for column in self.table.columns\n",
        "            column.name: lambda _: None\n            for column in ()\n",
        "highload/test_resource.py::test_a_column_that_nobody_fills_is_refused",
        "tests.other is shown before the database has filled it",
    ),
    Mutation(
        "what is shown before it is stored is known by then",
        "app/highload/resource.py",
        "            if self.queued and name not in self.filled:\n",
        "            if False:\n",
        "highload/test_resource.py::test_what_is_shown_before_it_is_stored_is_known_by_then",
        "DID NOT RAISE",
    ),
    Mutation(
        "another primary key is refused",
        "app/highload/resource.py",
        '        if [column.name for column in self.table.primary_key] != ["id"]:\n',
        "        if False:\n",
        "highload/test_resource.py::test_another_primary_key_is_refused",
        "DID NOT RAISE",
    ),
    Mutation(
        "what the database fills is shown",
        "app/highload/resource.py",
        "name not in self.filled or not comes_back_as_given",
        "not comes_back_as_given",
        "highload/test_resource.py::test_the_database_fills_a_column_and_the_answer_shows_it",
        "ranked",
    ),
    Mutation(
        "a key is one of a resource",
        "app/highload/resource.py",
        'idempotency.id_of(idempotency_key, f"{service}/{self.name}")',
        "idempotency.id_of(idempotency_key, service)",
        "highload/test_resource.py::test_keys_of_two_resources_and_two_services_are_their_own",
        "assert 2 == 3",
    ),
    Mutation(
        "a new field leaves fingerprints alone",
        "app/highload/idempotency.py",
        "body.model_dump(exclude_defaults=True)",
        "body.model_dump()",
        "highload/test_resource.py::test_a_field_that_is_added_later_leaves_fingerprints_alone",
        "assert '",
    ),
    Mutation(
        "a foreign key that acts makes its table decide",
        "app/highload/resource.py",
        "        return Source(self.name, also=self._decided_by)\n",
        "        return Source(self.name)\n",
        "highload/test_resource.py::test_tables_whose_foreign_keys_act_on_rows_decide_about_them",
        "assert Source(",
    ),
    Mutation(
        "the queue keeps every type",
        "app/highload/resource.py",
        'to_json(list(rows), bytes_mode="base64", inf_nan_mode="strings")',
        'to_json(list(rows), bytes_mode="base64", inf_nan_mode="null")',
        "highload/test_resource.py::test_every_type_survives_the_queue[SQLite]",
        "Input should be a valid number",
    ),
    Mutation(
        "a message of another meaning waits for a newer worker",
        "app/highload/resource.py",
        '        if message["version"] > self.version:\n',
        "        if False:\n",
        "highload/test_releases.py::test_an_old_worker_leaves_a_message_to_a_new_one[another meaning]",
        "TimeoutError",
        QUEUE,
    ),
    Mutation(
        "a field that a worker does not know is not dropped",
        "app/highload/resource.py",
        "            if unknown := row.keys() - self.table.columns.keys():\n",
        "            if unknown := set():\n",
        "highload/test_releases.py::test_an_old_worker_leaves_a_message_to_a_new_one[another column]",
        "TimeoutError",
        QUEUE,
    ),
    Mutation(
        "a field that an old message does not have gets its default",
        "app/highload/resource.py",
        "            for name in self._defaults.keys() - row.keys():\n",
        "            for name in ():\n",
        "highload/test_resource.py::test_an_old_message_gets_the_defaults_of_what_it_lacks",
        "assert",
    ),
    Mutation(
        "a row waits for the one that it refers to",
        "app/highload/worker.py",
        "    later = [row for row, reason in refused if isinstance(reason, MissingReference)]\n",
        "    later: list[Row] = []\n",
        "highload/test_releases.py::test_a_row_waits_for_the_one_that_it_refers_to",
        "TimeoutError",
        QUEUE,
    ),
    Mutation(
        "a message does not wait for ever",
        "app/highload/worker.py",
        "    if time.time() - first > COMES_LATER:\n",
        "    if False:\n",
        "highload/test_releases.py::test_a_message_that_no_release_reads_is_a_dead_letter_in_the_end",
        "TimeoutError",
        QUEUE,
    ),
    Mutation(
        "what is too long in an array is refused",
        "app/highload/statements.py",
        "                cast(value, array_of(column.type.item_type)) if isinstance(column.type, ARRAY) else value\n",
        "                cast(value, column.type) if isinstance(column.type, ARRAY) else value\n",
        "highload/test_resource.py::test_what_is_too_long_in_an_array_is_refused_and_not_cut[PostgreSQL]",
        "DID NOT RAISE",
        DATABASE,
    ),
    Mutation(
        "an alert asks for what is exposed",
        "observe/prometheus/rules/queue.yml",
        "highload_fallbacks_total",
        "highload_fallback_total",
        "test_observe.py::test_every_expression_asks_for_what_is_there",
        "('highload_fallback_total', 'sum(increase(",
    ),
    Mutation(
        "a panel sums by labels that are exposed",
        "observe/grafana/dashboards/service.json",
        "sum by (http_response_status_code)",
        "sum by (status)",
        "test_observe.py::test_every_expression_asks_for_what_is_there",
        "'status'",
    ),
    Mutation(
        "an alert has an entry in the runbook",
        "docs/runbook.md",
        "## DeadLetters\n",
        "## Other letters\n",
        "test_observe.py::test_every_alert_has_its_entry_in_the_runbook",
        "'DeadLetters'",
    ),
    Mutation(
        "each request on the connection is counted",
        "app/highload/server.py",
        "        values[row + 1 + bisect_left(SECONDS, seconds)] += 1\n",
        "",
        "highload/test_metrics.py::test_each_request_is_counted_once",
        "('/notes', 0) == ('/notes', 1)",
    ),
    Mutation(
        "what is refused on the connection is counted",
        "app/highload/server.py",
        "            service.requests.refuse(self.parser.get_method().decode(), refusal.status)\n",
        "",
        "highload/test_metrics.py::test_who_is_refused_is_counted_once",
        "assert 0 == 3",
    ),
    Mutation(
        "a successor goes on in the slot of a process that has died",
        "app/highload/metrics/instruments.py",
        "            values[base + offset] += self.values[self.base + offset]\n",
        "            values[base + offset] = self.values[self.base + offset]\n",
        "highload/test_metrics.py::test_a_successor_goes_on_and_has_gauges_of_its_own",
        "== (2, 5, 2)",
    ),
    Mutation(
        "numbers of another release are not taken for ours",
        "app/highload/metrics/slots.py",
        "            self._is_foreign = True\n            return\n",
        "            pass\n",
        "highload/test_metrics.py::test_a_process_of_another_release_tells_nothing",
        "DID NOT RAISE",
    ),
    Mutation(
        "no client makes series",
        "app/highload/metrics/instruments.py",
        "            row, key = last, self.other\n",
        "            row = last\n",
        "highload/test_metrics.py::test_what_a_scrape_tells_is_bounded_whatever_came",
        "AssertionError",
    ),
    Mutation(
        "a reload that counts something else begins with nothing",
        "gunicorn.conf.py",
        "            arbiter.counters = mmap(-1, SLOTS * SLOT_BYTES)\n",
        "            pass\n",
        "test_items_metrics.py::test_no_request_is_lost_or_counted_twice",
        "counts something else",
    ),
    Mutation(
        "a flush is linked to all who share it",
        "app/highload/tracing/spans.py",
        "        [Link(other) for other in others],\n",
        "        [],\n",
        "highload/test_tracing.py::test_a_flush_is_a_child_of_its_first_caller_and_linked_to_the_others",
        "assert [] == [",
    ),
    Mutation(
        "only a request begins a trace",
        "app/highload/tracing/collector.py",
        "Decision.RECORD_AND_SAMPLE if kind is SpanKind.SERVER else Decision.DROP",
        "Decision.RECORD_AND_SAMPLE",
        "highload/test_tracing.py::test_only_a_request_begins_a_trace",
        "work in the background",
    ),
    Mutation(
        "the words of an error are in no span",
        "app/highload/tracing/spans.py",
        "        record_exception=False,\n",
        "",
        "highload/test_tracing.py::test_the_words_of_an_error_are_in_no_span",
        "contains one more item",
    ),
    Mutation(
        "reads keep their short way while others are traced",
        "app/highload/server.py",
        "    if app.sampling is not None:\n        return False\n",
        "",
        "highload/test_tracing.py::test_a_read_takes_the_short_way_unless_its_client_traces_it",
        "assert [None, ",
    ),
    Mutation(
        "the last spans hold up no end",
        "app/highload/tracing/collector.py",
        "        if flushing.is_alive():\n            exporter.shutdown()\n",
        "",
        "highload/test_tracing.py::test_the_last_spans_do_not_hold_up_the_end",
        "assert None is ",
    ),
]


SHARED = "app/highload/reads/shared.py"
SHARING = "app/highload/reads/sharing.py"
ACCESS = "app/highload/http/access.py"
RATES = "app/highload/http/rates.py"
LAYER = "app/highload/lean_layer.py"
SERVER = "app/highload/server.py"
HEADS = "app/highload/http/heads.py"
UVICORN = "uvicorn/protocols/http/httptools_impl.py"
ANSWERS = "highload/test_server_differential.py::test_answers_are_those_of_the_plain_protocol"
FULL = "highload/test_server_differential.py::test_a_full_service_refuses_as_the_plain_protocol_does"
RANDOM = "highload/test_server_differential.py::test_random_sequences_are_answered_as_by_the_plain_protocol"
SEES = "highload/test_server_differential.py::test_what_looks_at_each_request_sees_each"


def refused(asks: str, text: str, instead: str = "    if False:\n", *, place: str = "handler") -> Mutation:
    """Return the mutation that lets a shared route ask for something that may be personal."""
    test = f"test_a_shared_route_that_may_be_personal_is_refused[{place}-{asks}]"
    guarantee = f"a shared route that {asks.replace('_', ' ')} is refused, {place}"
    return Mutation(guarantee, SHARED, text, instead, f"highload/test_sharing.py::{test}", "DID NOT RAISE")


def hidden(guarantee: str, text: str, instead: str) -> Mutation:
    """Return the mutation that lets a route stand where nobody knows whether it answers, or not."""
    test = "highload/test_sharing.py::test_a_route_that_another_one_hides_is_refused"
    return Mutation(guarantee, SHARED, text, instead, test, "DID NOT RAISE")


MUTATIONS += [
    refused("asks_for_a_cookie", "    if dependant.cookie_params:\n"),
    refused(
        "asks_for_scopes", "    if isinstance(unwrap(call), SecurityBase) or dependant.security_scopes_param_name:\n"
    ),
    refused("asks_for_a_body", "    if dependant.body_params:\n"),
    refused(
        "asks_for_the_request",
        "    if whole_request := dependant.request_param_name or dependant.http_connection_param_name:\n",
    ),
    refused(
        "asks_for_the_client",
        "    if whole_request := dependant.request_param_name or dependant.http_connection_param_name:\n",
        "    if whole_request := dependant.request_param_name:\n",
    ),
    refused("has_background_tasks", "    if dependant.background_tasks_param_name:\n"),
    refused(
        "asks_who_is_there",
        "        if type(call) is Guard and dependant.name is not None:\n",
        "        if False:\n",
    ),
    refused(
        "asks_for_a_cookie",
        "            yield from dependants_in(dependency)\n",
        "            pass\n",
        place="nested",
    ),
    hidden(
        "a route that reads requests itself is not shared",
        " or type(route).get_route_handler not in HANDLERS:\n",
        ":\n",
    ),
    hidden(
        "a stream is not shared",
        "    if route.is_sse_stream or route.is_json_stream:\n",
        "    if False:\n",
    ),
    hidden(
        "only GET is shared",
        '        if is_shared and "GET" not in (context.methods or ()):\n',
        "        if False:\n",
    ),
    hidden(
        "no shared route stands behind one that nobody can predict",
        "        if is_shared and unpredictable:\n",
        "        if False:\n",
    ),
    hidden(
        "no shared route hides another one",
        "            if (earlier.shared or later.shared) and earlier.pattern.match(later.sample):\n",
        "            if False:\n",
    ),
    Mutation(
        "a read hands its connection to the next",
        "app/highload/turns.py",
        "            if lease is not None and not self._next_one_reads():\n",
        "            if lease is not None:\n",
        "highload/test_database.py::test_a_read_hands_its_connection_to_the_next[SQLite]",
        "assert 50 == 2",
    ),
    Mutation(
        "a turn that came to who is going away is passed on",
        "app/highload/turns.py",
        "                await self.give(turn.result())\n",
        "                pass\n",
        "highload/test_turns.py::test_a_turn_that_came_to_who_is_going_away_is_passed_on",
        "TimeoutError",
    ),
    Mutation(
        "a connection goes back when the next one leaves meanwhile",
        "app/highload/turns.py",
        "            if lease is not None and not self._next_one_reads():\n                await lease.close()\n",
        "            elif lease is not None:\n                await lease.close()\n",
        "highload/test_turns.py::test_a_connection_goes_back_when_the_next_one_leaves_while_it_is_made_as_new",
        "['renewed'] == ",
    ),
    Mutation(
        "a connection is handed on as new",
        "app/highload/turns.py",
        "            await self._connection.rollback()\n",
        "            pass\n",
        "highload/test_database.py::test_a_connection_is_handed_on_as_new[SQLite]",
        "InvalidRequestError",
    ),
    Mutation(
        "a connection with an error is not handed on",
        "app/highload/turns.py",
        "        except BaseException:\n            await self.close()\n            raise\n",
        "        except GeneratorExit:\n            raise\n",
        "highload/test_database.py::test_a_connection_with_an_error_is_not_handed_on[SQLite]",
        "assert 1 == 2",
    ),
    Mutation(
        "a route that is added later takes its place before the lean way",
        LAYER,
        "        if len(routes) != len(self._known) or not all(map(is_, routes, self._known)):\n",
        "        if not self._known:\n",
        "highload/test_lean.py::test_the_first_route_that_matches_serves_a_request",
        "assert b'[",
    ),
    Mutation(
        "what is around a route sees each request of the lean way",
        LAYER,
        " or route.app is not route.app_as_made or ",
        " or ",
        "highload/test_lean.py::test_what_is_around_a_route_sees_each_request[wrap_the_application]",
        "['past its layers'] == ",
    ),
    Mutation(
        "an agent in a layer sees each request of the lean way",
        LAYER,
        "        and all(is_own(kind, name) for kind, name in PASSED)\n",
        "",
        "highload/test_lean.py::test_an_agent_in_a_layer_sees_each_request",
        "assert []",
    ),
    Mutation(
        "no lean route hides behind one that nobody can predict",
        LAYER,
        "            break\n",
        "            continue\n",
        "highload/test_lean.py::test_what_fastapi_does_for_a_route_is_left_to_it[behind_what_nobody_predicts]",
        "['past its layers'] == ",
    ),
    Mutation(
        "who handles an error of the lean way can read the body",
        LAYER,
        "            await self._app(scope, received.again, send)\n",
        "            await self._app(scope, received, send)\n",
        "highload/test_lean.py::test_an_error_is_handled_once_and_with_the_body",
        "AttributeError",
    ),
    Mutation(
        "an endpoint that failed on the lean way is not called again",
        LAYER,
        "    request.scope[LEFT] = result\n",
        "",
        "highload/test_lean.py::test_an_error_is_handled_once_and_with_the_body",
        "assert ['x', 'x'] == ['x']",
    ),
    Mutation(
        "a request with a precondition passes the layers",
        "app/highload/service.py",
        "            and LOOKED_AT.isdisjoint(fields)\n",
        "",
        ANSWERS + "[lean: If-Match, between reads]",
        "assert [200, 201, 200] == [200, 412, 200]",
    ),
    Mutation(
        "a body that is too large passes the layers",
        "app/highload/service.py",
        '            and int(fields.get(b"content-length", b"0")) <= self._max_body_bytes\n',
        "",
        "highload/test_body_limit.py::test_a_body_that_is_too_large_is_for_the_layers",
        "assert not True",
    ),
    Mutation(
        "JSON in another encoding passes the layers",
        SERVER,
        ' or b"\\0" in self._cycle.body or',
        " or",
        ANSWERS + "[lean: in UTF-16, twice]",
        "assert [201, 201] == [400, 400]",
    ),
    Mutation(
        "JSON in another encoding passes the layers, also where it comes in pieces",
        SERVER,
        ' or received.holds(b"\\0"):\n',
        ":\n",
        ANSWERS + "[lean: in UTF-16, in pieces]",
        "assert [201] == [400]",
    ),
    Mutation(
        "who sends a body slowly holds no place on the lean way",
        SERVER,
        "        is_whole = not self._cycle.more_body or await received.whole()\n",
        "        is_whole = True\n",
        "highload/test_server.py::test_who_sends_a_body_slowly_holds_no_place",
        "assert 1 == 0",
    ),
    Mutation(
        "a shared route that is asked for alone says so",
        SERVER,
        '        if hasattr(scope["endpoint"], MARK):\n',
        "        if False:\n",
        ANSWERS + "[lean: shared, and asked for alone, between reads]",
        "assert",
    ),
    Mutation(
        "an answer that says more of its connection is Uvicorn's",
        "app/highload/reads/answers.py",
        "    if lengths != ([] if status in WITHOUT_BODY",
        "    if False and lengths != ([] if status in WITHOUT_BODY",
        ANSWERS + "[lean: last]",
        "assert",
    ),
    Mutation(
        "an answer with a line of its own is none on the lean way either",
        "app/highload/reads/answers.py",
        'STATUSES or UNSAFE.search(b"".join(chain.from_iterable(headers))):\n',
        "STATUSES:\n",
        "highload/test_server_differential.py::test_an_answer_that_is_none_ends_the_connection[two lines]",
        "assert",
    ),
    Mutation(
        "nobody stores the answer to a write on the lean way",
        SERVER,
        '        answer = answer._replace(headers=finish(scope["method"], answer.status, answer.headers))\n',
        "",
        ANSWERS + "[lean: POST, between reads]",
        "Outcome(answe...",
    ),
    Mutation(
        "what the server has begun is not refused",
        "app/highload/http/admission.py",
        " and not always and LEFT not in scope:\n",
        " and not always:\n",
        "highload/test_admission.py::test_what_the_server_has_begun_is_not_refused",
        "assert 503 == 200",
    ),
    Mutation(
        "an error of the lean way counts from its begin",
        SERVER,
        "        scope[BEGUN] = perf_counter()\n",
        "        scope[BEGUN] = 0.0\n",
        "highload/test_server.py::test_an_error_of_the_lean_way_counts_from_its_begin",
        "assert [False] == [True]",
    ),
    Mutation(
        "a route before a shared one keeps its requests",
        SHARED,
        "        self._patterns = [(candidate.pattern.match, candidate.shared) for candidate in candidates]\n",
        "        self._patterns = [(one.pattern.match, one.shared) for one in candidates if one.shared]\n",
        "highload/test_sharing.py::test_a_route_before_a_shared_one_keeps_its_requests",
        "x-cache",
    ),
    Mutation(
        "a declared parameter is part of the key",
        SHARED,
        "            names = None if names is None or aliases is None else names | aliases\n",
        '            names = {"tag"}\n',
        "highload/test_sharing.py::test_a_new_filter_is_part_of_the_key",
        "(None, ['x']) != ('A1', ['x'])",
    ),
    Mutation(
        "all of the query is the key of a model of parameters",
        SHARED,
        "            names = None if names is None or aliases is None else names | aliases\n",
        "            names = (names or set()) | (aliases or {'name'})\n",
        "highload/test_sharing.py::test_all_of_the_query_is_the_key_of_a_model_of_parameters",
        "[200, 200, 200] == [200, 200, 422]",
    ),
    Mutation(
        "a declared header is part of the key",
        SHARING,
        "            fields = urlencode([(name, value) for name, value in headers if name in route.headers])\n",
        '            fields = ""\n',
        "highload/test_sharing.py::test_a_declared_header_is_part_of_the_key",
        "['a'] != ['b']",
    ),
    Mutation(
        "a guarded read is shared",
        SHARED,
        "            guards[call.guard if isinstance(call, Partition) else call] = None\n",
        "            pass\n",
        "highload/test_sharing.py::test_a_guarded_read_is_shared",
        "<= 2",
    ),
    Mutation(
        "a guard is asked on the short way",
        SHARING,
        "            grants = {guard: guard.ask_at_once(HTTPConnection(scope)) for guard in route.guards}\n",
        "            grants = {guard: Granted() for guard in route.guards}\n",
        "highload/test_sharing.py::test_a_guarded_read_is_shared[short way-no Redis-key_of_owner]",
        "assert 200 == 401",
    ),
    Mutation(
        "a guard is asked on the long way",
        SHARING,
        "            grants = {guard: await guard(HTTPConnection(scope)) for guard in route.guards}\n",
        "            grants = {guard: Granted() for guard in route.guards}\n",
        "highload/test_sharing.py::test_a_guarded_read_is_shared[long way-no Redis-key_of_owner]",
        "assert 200 == 401",
    ),
    Mutation(
        "a partition is part of the key",
        SHARING,
        '            partitions = ",".join(quote(grants[guard].partition) for guard in route.guards)\n',
        '            partitions = ""\n',
        "highload/test_sharing.py::test_tenants_see_their_own",
        "== ['a', 'b',",
    ),
    Mutation(
        "a guard that forgets to answer lets nobody in",
        "app/highload/reads/dependencies.py",
        "    if not isinstance(granted, Granted):\n",
        "    if False:\n",
        "highload/test_sharing.py::test_a_guard_that_forgets_to_answer_lets_nobody_in",
        "== 500",
    ),
    Mutation(
        "a request is asked for its key on the short way",
        SERVER,
        "            refusal = access.ask(scope)\n",
        "            refusal = None\n",
        "highload/test_break_in.py::test_nobody_gets_in_without_the_right_key[short]",
        "('no key', '200')",
    ),
    Mutation(
        "a request is asked for its key on the long way",
        "app/highload/service.py",
        "            *([] if self.access is None else [Middleware(AccessLayer, access=self.access)]),\n",
        "",
        "highload/test_break_in.py::test_nobody_gets_in_without_the_right_key[long]",
        "('no key', '200')",
    ),
    Mutation(
        "a request is asked once, and costs one token",
        ACCESS,
        "scope.get(LET_IN) is self._access:\n",
        "False:\n",
        "highload/test_access.py::test_a_read_that_is_run_alone_costs_one_token",
        "[200, 429, 429]",
    ),
    Mutation(
        "a key may do what its scopes say",
        ACCESS,
        "        if needed not in key.scopes:\n",
        "        if False:\n",
        "highload/test_access.py::test_a_refusal_says_what_was_wrong",
        "assert None",
    ),
    Mutation(
        "a key that has expired is none, also when it was verified before",
        ACCESS,
        "        if key.expires <= time.time():\n",
        "        if False:\n",
        "highload/test_access.py::test_a_key_ends_while_it_is_remembered",
        "== [None, None,",
    ),
    Mutation(
        "all who may read share one answer",
        SHARED,
        "NOT_SHARED if guards or checks_credentials else",
        "NOT_SHARED if guards else",
        "highload/test_access.py::test_all_who_may_read_share_one_answer",
        "<= 2",
    ),
    Mutation(
        "spellings of a key do not fill the memory",
        "app/highload/http/keys.py",
        " and len(credentials) <= LONGEST_REMEMBERED:\n",
        ":\n",
        "highload/test_access.py::test_spellings_of_a_key_do_not_fill_the_memory",
        "assert not",
    ),
    Mutation(
        "clients do not fill the memory",
        RATES,
        "        if len(self._full_at) > self._most_clients:\n",
        "        if False:\n",
        "highload/test_access.py::test_clients_do_not_fill_the_memory",
        "assert 4 <= 3",
    ),
    Mutation(
        "a network of IPv6 has one bucket",
        RATES,
        "        return str(ip_network((int(address), PREFIX), strict=False))\n",
        "        return str(address)\n",
        "highload/test_access.py::test_a_network_of_ipv6_is_one_client",
        "assert '2001:db8:1:2::1' ==",
    ),
    Mutation(
        "what has a bucket for each address sees the client behind a proxy",
        SERVER,
        "            if access.asks_for_addresses:\n",
        "            if False:\n",
        "highload/test_access.py::test_addresses_have_a_rate_without_keys",
        "assert [429, 429, 429] == [200, 200, 429]",
    ),
    Mutation(
        "a shared run knows what the lifespan yields, and nothing of a client",
        SHARING,
        '            "state": self.state.copy(),\n',
        '            "state": scope["state"],\n',
        "highload/test_sharing.py::test_what_a_middleware_knows_of_a_client_is_not_what_the_lifespan_opened",
        "assert 200 == 500",
    ),
    Mutation(
        "a shared run sees the declared parameters only",
        SHARING,
        'declared_query(read.route, scope["query_string"]).encode()',
        'scope["query_string"]',
        "highload/test_sharing.py::test_the_answer_does_not_know_the_host_of_a_client",
        "notes?a=b",
    ),
    Mutation(
        "a shared run sees the configured host",
        SHARING,
        '            fields.insert(0, (b"host", self._host))\n',
        '            fields.insert(0, (b"host", dict(scope["headers"])[b"host"]))\n',
        "highload/test_sharing.py::test_the_answer_does_not_know_the_host_of_a_client",
        "evil.example",
    ),
    Mutation(
        "nothing is shared while dependencies are overridden",
        SHARING,
        " or self._service.dependency_overrides:\n",
        ":\n",
        "highload/test_sharing.py::test_what_a_test_overrides_is_not_shared",
        "KeyError: 'tenant'",
    ),
    Mutation(
        "the route that answers is the one of the key",
        SHARING,
        '        foreseen = scope.get("endpoint") is read.route.endpoint\n',
        "        foreseen = True\n",
        "highload/test_sharing.py::test_a_route_that_comes_later_is_noticed",
        "'title': 'Internal Server Error'",
    ),
    Mutation(
        "an error handler of the user sees the request itself",
        SHARING,
        "        if answer.status >= FIRST_ERROR and self._errors_may_be_personal:\n            return None\n",
        "",
        "highload/test_sharing.py::test_an_error_handler_of_the_user_sees_the_request_itself",
        "== ['de', 'fr']",
    ),
    Mutation(
        "credentials without a guard are not shared",
        SHARED,
        "not_shared=NOT_SHARED if guards or checks_credentials else NOT_SHARED | CREDENTIALS,",
        "not_shared=NOT_SHARED,",
        "highload/test_sharing.py::test_credentials_without_a_guard_are_not_shared",
        "['bypass', 'bypass', 'bypass']",
    ),
    Mutation(
        "a part of an answer is not shared",
        SHARED,
        'b"transfer-encoding", b"range"]',
        'b"transfer-encoding"]',
        "highload/test_sharing.py::test_a_part_of_an_answer_is_not_shared",
        "== 'bypass'",
    ),
    Mutation(
        "a long key is not shared",
        SHARING,
        " if len(key) <= LONGEST_KEY else None\n",
        "\n",
        "highload/test_sharing.py::test_a_long_key_is_not_shared",
        "(200, 'bypass')",
    ),
    Mutation(
        "the middleware of a user runs for shared reads on the long way",
        "app/highload/service.py",
        "            *added,\n            Middleware(HeadAsGet, router=self.router),\n"
        "            Middleware(Expectations, router=self.router),\n"
        "            Middleware(SharedReadsLayer, reads=self.reads),\n",
        "            Middleware(HeadAsGet, router=self.router),\n"
        "            Middleware(Expectations, router=self.router),\n"
        "            Middleware(SharedReadsLayer, reads=self.reads),\n            *added,\n",
        "highload/test_sharing.py::test_each_client_gets_its_own_request_id[long way-no Redis]",
        "'client 0'",
    ),
    Mutation(
        "an application around the service is asked",
        SERVER,
        "    return cast(ASGIApp, app.app) if isinstance(app, ProxyHeadersMiddleware) else app\n",
        "    return getattr(app.app, '_app', app.app)\n",
        "highload/test_sharing.py::test_middleware_around_the_application_runs_for_shared_reads[short way-no Redis]",
        "assert 200 == 403",
    ),
    Mutation(
        "a service that may not share says why and does not start",
        "app/highload/service.py",
        '            await send({"type": "lifespan.startup.failed",',
        '            await tell({"type": "nothing",',
        "highload/test_sharing.py::test_the_server_says_in_one_sentence_why_it_does_not_start",
        "should_exit",
    ),
    Mutation(
        "a service that has not started says so",
        "app/highload/service.py",
        "        if not self._started:\n            raise RuntimeError(NOT_STARTED)\n",
        "",
        "test_items_main.py::test_a_test_client_without_its_block_is_told_what_to_write",
        "DID NOT RAISE",
    ),
]

# What the server does itself, and what it relies on in Uvicorn.
MUTATIONS += [
    Mutation(
        "the short way is taken",
        SERVER,
        "            app = self._begin(cycle, scope, service)\n            if app is None:\n                return\n",
        "",
        ANSWERS,
        "assert 2 == (0 + 1)",
    ),
    Mutation(
        "the last answer of a connection says so",
        SERVER,
        "            not cycle.keep_alive\n            or self.flow.write_paused\n",
        "            self.flow.write_paused\n",
        ANSWERS,
        "Outcome(answe...",
    ),
    Mutation(
        "shared answers that nobody reads do not pile up",
        SERVER,
        "            or self.flow.write_paused\n            or service.admission",
        "            or service.admission",
        "highload/test_server.py::test_answers_that_nobody_reads_do_not_pile_up",
        "TimeoutError",
    ),
    Mutation(
        "refusals that nobody reads do not pile up",
        SERVER,
        "            and not self.flow.write_paused\n",
        "",
        "highload/test_server.py::test_a_client_that_does_not_read_waits_for_the_application",
        "TimeoutError",
    ),
    Mutation(
        "a shared read is in the access log",
        SERVER,
        '    reason = "the access log is on" if access_log else why_not_the_short_way(served)\n',
        "    reason = why_not_the_short_way(served)\n",
        "highload/test_server_differential.py::test_each_request_is_in_the_access_log",
        "At index 0 diff: 'GET /api/notes HTTP/1.1' != 'GET /notes HTTP/1.1'",
    ),
    Mutation(
        "what exceeds a limit of Uvicorn itself gets its answer",
        SERVER,
        "        if app is self.app and service is not None",
        "        if service is not None",
        "highload/test_server_differential.py::test_what_exceeds_a_limit_of_uvicorn_itself_gets_its_answer",
        "assert [Answer(raw=b",
    ),
    Mutation(
        "a full service shares no read",
        SERVER,
        "            or service.admission.full_soon\n",
        "",
        FULL + "[GET /notes?limit=%31, at first]",
        "assert [200] == [503]",
    ),
    Mutation(
        "the server refuses what is too much",
        SERVER,
        "            self.send(refusal, request_id_of(self.headers, trusted=self._trusted))\n            return\n",
        "            pass\n",
        "highload/test_server.py::test_a_refusal_of_the_server_is_that_of_the_application",
        "AssertionError: assert not [",
    ),
    Mutation(
        "those who come at once are refused by the server",
        SERVER,
        "            service.admission.expect()\n",
        "",
        "highload/test_server.py::test_those_who_come_at_once_are_refused_by_the_server",
        "assert 30 == 2",
    ),
    Mutation(
        "nobody is expected for ever",
        "app/highload/http/admission.py",
        "            asyncio.get_running_loop().call_soon(self._forget)\n",
        "            pass\n",
        "highload/test_server.py::test_those_who_come_at_once_are_refused_by_the_server",
        "HTTP/1.1 503",
    ),
    Mutation(
        "the first request of a connection is refused by the server",
        SERVER,
        "            self.cycle.response_complete\n            and parser.get_http_version",
        "            self.cycle is not BEFORE_THE_FIRST and self.cycle.response_complete\n"
        "            and parser.get_http_version",
        "highload/test_server.py::test_those_who_come_at_once_are_refused_by_the_server",
        "assert 30 == 2",
    ),
    Mutation(
        "a kept head is that of the same answer",
        HEADS,
        "            or head.headers is not headers\n",
        "",
        ANSWERS,
        "assert [] == [200]",
    ),
    Mutation(
        "a kept head is that of now",
        HEADS,
        " or head.server_headers != server_headers",
        "",
        "highload/test_server.py::test_a_stopping_server_says_so_in_a_refusal",
        "connection: close' in b\"HTTP/1.1 503",
    ),
    Mutation(
        "the refusal of a HEAD has no body",
        SERVER,
        'USUAL_METHODS = frozenset([b"GET", ',
        'USUAL_METHODS = frozenset([b"HEAD", b"GET", ',
        FULL + "[HEAD /notes]",
        "invalid literal for int() with base 10",
    ),
    Mutation(
        "a full service lets in what it always lets in",
        SERVER,
        "            and target[1].decode() not in always\n",
        "",
        FULL + "[GET /livez]",
        "assert [503, 503] == [200, 200]",
    ),
    Mutation(
        "a full service looks at a target that may be another one",
        SERVER,
        "            and (target := USUAL_TARGET.fullmatch(self.url)) is not None\n"
        "            and target[1].decode() not in always\n",
        '            and self.url.partition(b"?")[0].decode() not in always\n',
        FULL + "[GET /%6civez]",
        "assert [200, 503] == [200, 200]",
    ),
    Mutation(
        "a full service leaves a URL that is too long to the parser",
        SERVER,
        "[\\w.~=&-]{0,1000})?",
        "[\\w.~=&-]*)?",
        FULL + "[a URL that is too long]",
        "assert [200, 503] == [200, 400]",
    ),
    Mutation(
        "a last request that waits for 100 stays the last one",
        SERVER,
        "            self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False\n",
        "            self.cycle.keep_alive = False\n",
        RANDOM,
        "connection: close",
    ),
    Mutation(
        "a request without its offer of another protocol has the same version",
        SERVER,
        '        line = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, '
        "self.parser.get_http_version().encode())\n",
        '        line = b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)\n',
        RANDOM,
        "connection: close",
    ),
    Mutation(
        "a pipeline does not stand in its own way",
        SERVER,
        "            self.cycle.response_complete\n            and parser",
        "            parser",
        "highload/test_server.py::test_answers_keep_the_order_of_the_requests",
        "HTTP/1.1 503",
    ),
    Mutation(
        "a guard sees the client behind a proxy",
        SHARING,
        "        see_client(scope)\n",
        "",
        "highload/test_server_differential.py::test_a_guard_sees_the_client_behind_a_proxy",
        "http 127.0.0.1",
    ),
    Mutation(
        "trailers are no fields of a request",
        SERVER,
        "            self.headers = []\n",
        "            pass\n",
        "highload/test_server_differential.py::test_a_difference_from_the_plain_protocol_is_meant"
        "[a host among the trailers]",
        "'400 open'",
    ),
    Mutation(
        "another host is refused on the short way",
        SERVER,
        "            or service.hosts.refusal(scope)\n",
        "",
        "highload/test_server_differential.py::test_another_host_is_refused_on_both_ways",
        "assert 0 == (14 - 6)",
    ),
    Mutation(
        "another host is refused on the long way",
        "app/highload/http/hosts.py",
        "        if status is None:\n",
        "        if True:\n",
        "highload/test_server_differential.py::test_another_host_is_refused_on_both_ways",
        "assert 201 == 421",
    ),
    Mutation(
        "a host that only ends like an allowed one is another one",
        "app/highload/http/hosts.py",
        "pattern[1:] for",
        "pattern[2:] for",
        "highload/test_server_differential.py::test_another_host_is_refused_on_both_ways",
        "assert 6 == (14 - 6)",
    ),
    Mutation(
        "a request is below the root path on the short way",
        SERVER,
        "        service.place(scope)\n",
        "",
        "highload/test_server_differential.py::test_a_root_path_counts_whether_or_not_a_proxy_takes_it_off",
        "'/api/notes'",
    ),
    Mutation(
        "a request is below the root path on the long way",
        "app/highload/service.py",
        "        self.place(scope)\n",
        "",
        "test_items_main.py::test_items_are_found_below_a_root_path",
        "/api/items/",
    ),
    Mutation(
        "a route that begins with the root path is refused",
        "app/highload/service.py",
        "        refuse_routes_below(self._below, self)\n",
        "",
        "highload/test_outside.py::test_a_route_that_begins_with_the_root_path_is_refused",
        "DID NOT RAISE",
    ),
    Mutation(
        "shared answers have security headers on the short way",
        HEADS,
        "*fields, security, FIELD",
        "*fields, FIELD",
        "highload/test_security_headers.py::test_a_shared_answer_has_them_on_the_short_way",
        "nosniff",
    ),
    Mutation(
        "a field that the application has set stays alone",
        "app/highload/http/security_headers.py",
        "        if self._names.isdisjoint(given):\n",
        "        if True:\n",
        "highload/test_security_headers.py::test_a_shared_answer_has_them_on_the_short_way",
        "default-src",
    ),
    Mutation(
        "an answer without a body leaves the policy of a page alone",
        "app/highload/http/security_headers.py",
        "        if status == NOT_MODIFIED:\n",
        "        if False:\n",
        "highload/test_security_headers.py::test_what_has_not_changed_gets_no_policy",
        "content-security-policy",
    ),
    Mutation(
        "all that the documentation loads comes from the service",
        "app/highload/http/docs.py",
        'src="{static}/docs.js"',
        'src="https://example.org/docs.js"',
        "highload/test_docs.py::test_the_page_and_all_that_it_loads_come_from_the_service",
        "example.org",
    ),
    Mutation(
        "nobody keeps a file under the address of another release",
        "app/highload/http/docs.py",
        "A_YEAR if is_ours else ASK_EACH_TIME",
        "A_YEAR",
        "highload/test_docs.py::test_what_another_release_asks_for_is_not_kept",
        "immutable",
    ),
    Mutation(
        "a program is not led to a page",
        "app/highload/http/docs.py",
        'weight_of("text/html", accept) > weight_of("application/json", accept)',
        'weight_of("text/html", accept)',
        "highload/test_docs.py::test_a_program_is_told_where_the_document_is",
        "303",
    ),
    Mutation(
        "the server believes the proxies of the settings",
        "gunicorn.conf.py",
        'forwarded_allow_ips = settings["forwarded_allow_ips"]\n',
        "",
        "test_config.py::test_gunicorn_gets_its_settings_from_the_service",
        "forwarded_allow_ips",
    ),
    Mutation(
        "a secret ends before the end of its line",
        "app/highload/secret_files.py",
        '.rstrip("\\r\\n")',
        "",
        "test_config.py::test_a_secret_stands_in_a_file",
        "P@ss",
    ),
    Mutation(
        "a secret is set once",
        "app/highload/secret_files.py",
        "            if len(places) > 1:\n",
        "            if False:\n",
        "test_config.py::test_a_secret_is_set_once",
        "DID NOT RAISE",
    ),
    Mutation(
        "an option of an address is there once",
        "app/highload/addresses.py",
        "        if names.count(name) > 1:\n",
        "        if False:\n",
        "highload/test_addresses.py::test_what_cannot_be_used_is_refused_in_words",
        "DID NOT RAISE",
    ),
    Mutation(
        "an overloaded pipeline is left to the application",
        SERVER,
        "            # The application says so. To answer from here would go on to the next one of a pipeline"
        " from within.\n"
        "            return self.application\n",
        "            end(cycle)\n            self.send(service.reads.refusal, scope[KEY])\n            return None\n",
        "highload/test_server.py::test_a_long_pipeline_is_refused_request_by_request",
        "IncompleteReadError",
    ),
    Mutation(
        "a read that the server shares is bounded, too",
        SERVER,
        "        self._service.admission.enter()\n",
        "",
        "highload/test_server.py::test_a_shared_read_takes_a_place_while_it_waits",
        "assert set()",
    ),
    Mutation(
        "a shared read gives its place back",
        SERVER,
        "        self._service.admission.leave()\n",
        "",
        "highload/test_server.py::test_a_shared_read_takes_a_place_while_it_waits",
        "HTTP/1.1 503",
    ),
    Mutation(
        "a stopping server waits for a shared read",
        SERVER,
        "        self._tasks.add(self)\n",
        "",
        "highload/test_server.py::test_a_stopping_server_waits_for_a_shared_read_without_a_client",
        "assert not True",
    ),
    Mutation(
        "a stopping server does not wait for what was answered",
        SERVER,
        '        """Send the answer, or run the application for this request alone."""\n'
        "        self._end()\n        self._tasks.discard(self)\n",
        '        """Send the answer, or run the application for this request alone."""\n        self._end()\n',
        "highload/test_server.py::test_a_client_that_goes_away_takes_nothing_with_it",
        "timeout graceful shutdown exceeded",
    ),
    Mutation(
        "a personal answer is not tried to share twice",
        SERVER,
        "        cast(Scope, cycle.scope)[ALONE] = True\n",
        "",
        "highload/test_server_differential.py::test_a_personal_answer_takes_one_run_to_find_out_and_one_of_its_own",
        "assert ['a', 'a', 'a'] == ['a', 'a']",
    ),
    Mutation(
        "nothing is run for a client that went away",
        SERVER,
        "        if outcome is None and not self._connection.transport.is_closing():\n",
        "        if outcome is None:\n",
        "highload/test_server.py::test_nothing_is_run_alone_for_a_client_that_went_away",
        "assert 2 == 1",
    ),
    Mutation(
        "a personal answer is given to each by itself",
        SERVER,
        "            self._connection.run_alone(self._cycle)\n",
        "            self.cancel()\n",
        ANSWERS,
        "assert [] == [200]",
    ),
    Mutation(
        "the server says when nothing has changed",
        SERVER,
        "            self._send(heed_conditions(self._read.scope, answer), cache_status)\n",
        "            self._send(answer, cache_status)\n",
        "highload/test_server.py::test_the_server_says_when_nothing_has_changed",
        "HTTP/1.1 304 ",
    ),
    Mutation(
        "who is refused while it waits is told so",
        SERVER,
        "        if isinstance(exception, Overloaded):\n",
        "        if False:\n",
        "highload/test_server.py::test_who_is_refused_while_it_waits_is_told_so",
        "IncompleteReadError",
    ),
    Mutation(
        "a bug of the sharing is logged",
        SERVER,
        '        self._connection.logger.error("Exception in ASGI application", exc_info=exception)\n',
        "",
        "highload/test_server.py::test_a_bug_of_the_sharing_itself_is_logged_and_ends_the_connection",
        "assert 0 == 2",
    ),
    Mutation(
        "a bug of the sharing leaves nobody waiting",
        SERVER,
        "        REQUEST_ID.reset(before)\n        self.cancel()\n",
        "        REQUEST_ID.reset(before)\n",
        "highload/test_server.py::test_a_bug_of_the_sharing_itself_is_logged_and_ends_the_connection",
        "TimeoutError",
    ),
    Mutation(
        "an answer that cannot be sent gives its place back once",
        SERVER,
        "        if not self._ended:\n            self._end()\n            self._send(None)\n",
        "        self._end()\n        self._send(None)\n",
        "highload/test_server.py::test_a_bug_of_the_sharing_itself_is_logged_and_ends_the_connection",
        "assert -2 == 0",
    ),
    Mutation(
        "a shared read that was given up gives its place back once",
        SERVER,
        "        return self._ended\n",
        "        return False\n",
        "highload/test_server.py::test_a_server_that_may_not_wait_longer_hangs_up",
        "assert -3 == 0",
    ),
    Mutation(
        "a server that may not wait longer hangs up",
        SERVER,
        "        self._connection.transport.close()\n        # Later",
        "        # Later",
        "highload/test_server.py::test_a_server_that_may_not_wait_longer_hangs_up",
        "TimeoutError",
    ),
    Mutation(
        "a server can give up all shared reads",
        SERVER,
        "        self._connection.loop.call_soon(self._tasks.discard, self)\n",
        "        self._tasks.discard(self)\n",
        "highload/test_server.py::test_a_server_that_may_not_wait_longer_hangs_up",
        "Set changed size during iteration",
    ),
    Mutation(
        "a connection is used again after a shared answer",
        SERVER,
        "    cycle.response_started = cycle.response_complete = True\n",
        "    cycle.response_started = True\n",
        ANSWERS,
        "assert 'no answer any more' == 'open'",
    ),
    Mutation(
        "a connection leaves no garbage",
        SERVER,
        "which refers to the cycle.\n    cycle.on_response = nothing\n",
        "",
        "highload/test_server.py::test_a_connection_leaves_no_garbage",
        "TimeoutError",
    ),
    Mutation(
        "a pipeline that broke off is left alone",
        SERVER,
        "        if not self._connection.transport.is_closing():\n            request_id",
        "        if not self._cycle.disconnected:\n            request_id",
        "highload/test_server.py::test_a_pipeline_that_breaks_off_takes_nothing_with_it",
        "a result co",
    ),
    Mutation(
        "the last answer of a stopping server ends the connection",
        SERVER,
        "        if not keep_alive or CONNECTION_CLOSE in self.server_state.default_headers:\n"
        "            self.transport.close()\n",
        "",
        "highload/test_server.py::test_a_stopping_server_begins_no_request_behind_its_last_answer",
        "== b''",
    ),
    Mutation(
        "a pipeline goes on after a shared answer",
        SERVER,
        "            self.transport.close()\n        self.on_response_complete()\n",
        "            self.transport.close()\n",
        ANSWERS,
        "assert 'no answer any more' == 'open'",
    ),
    Mutation(
        "a shared answer has the header fields of the server",
        HEADS,
        "for field in (*server_headers, *headers[:first])]",
        "for field in headers[:first]]",
        ANSWERS,
        "Outcome(answe...",
    ),
    Mutation(
        "an untested Uvicorn is left as it is",
        SERVER,
        "    if uvicorn.__version__.startswith(TESTED_WITH):\n",
        "    if True:\n",
        "highload/test_server_differential.py::test_another_uvicorn_is_left_as_it_is",
        "Connection'> is HttpToolsProtocol",
    ),
    Mutation(
        "an untested FastAPI serves every route itself",
        "app/highload/lean.py",
        "    if not fastapi.__version__.startswith(TESTED_WITH):\n        yield ",
        "    if False:\n        yield ",
        "highload/test_lean.py::test_another_release_of_fastapi_serves_itself",
        "['lean'] == ",
    ),
    Mutation(
        "a dependency that is added to a route later is called",
        "app/highload/lean.py",
        "            if dependant.call is not call or dependant.dependencies != dependencies:\n",
        "            if False:\n",
        "highload/test_lean.py::test_a_dependency_that_is_added_later_is_called",
        "assert 200 == 403",
    ),
    Mutation(
        "a middleware sees each request",
        SERVER,
        "    for layer in service.user_middleware:\n",
        "    for layer in ():\n",
        SEES,
        "assert 6 == 12",
    ),
    Mutation(
        "layers that something else has built see each request",
        SERVER,
        "    if not service.stack_is_its_own:\n",
        "    if False:\n",
        SEES,
        "assert 6 == 12",
    ),
    Mutation(
        "an agent that has replaced a method sees each request",
        SERVER,
        "        if culprit := replaced_by(call, owner.__module__):\n",
        "        if culprit := None:\n",
        SEES,
        "assert 6 == 12",
    ),
    Mutation(
        "a service with a method of its own sees each request",
        SERVER,
        "        if owner not in (Service, FastAPI, Starlette):\n",
        "        if False:\n",
        SEES + "[a class of its own]",
        "assert 6 == 12",
    ),
    Mutation(
        "the wrapper of an agent does not pass for what it wraps",
        "app/highload/replaced.py",
        "function.__code__.co_filename if type(function) is FunctionType else type(function).__module__",
        "function.__code__.co_filename",
        SEES + "[a wrapped method]",
        "assert 6 == 12",
    ),
    Mutation(
        "FastAPI's root_path counts on both ways",
        SERVER,
        "    if service.root_path:\n",
        "    if False:\n",
        SEES,
        "assert 6 == 12",
    ),
    Mutation(
        "telemetry sees each request",
        SERVER,
        '    return "FastAPI writes telemetry" if writes_telemetry(service) else None\n',
        "    return None\n",
        "highload/test_server_differential.py::test_telemetry_counts_each_request",
        "assert 0 >= 3",
    ),
    Mutation(
        "the reason for the long way is logged once",
        SERVER,
        "@cache\ndef say_once",
        "@__import__('functools').lru_cache(maxsize=0)\ndef say_once",
        SEES,
        "Left contains 11 more items",
    ),
    Mutation(
        "a stopping server says which answer is the last",
        SERVER,
        "            last_answer_headers.append(CONNECTION_CLOSE)\n",
        "            pass\n",
        "highload/test_server.py::test_a_stopping_server_begins_no_request_behind_its_last_answer",
        "assert 0 == 1",
    ),
    Mutation(
        "a stopping server says once which answer is the last",
        SERVER,
        "        if CONNECTION_CLOSE not in last_answer_headers:\n",
        "        if True:\n",
        "highload/test_server.py::test_a_stopping_server_begins_no_request_behind_its_last_answer",
        "assert 2 == 1",
    ),
    Mutation(
        "a stopping server tells also who began long ago",
        SERVER,
        "        if not self.cycle.response_started:\n            self.cycle.keep_alive = False\n",
        "",
        "highload/test_server.py::test_a_stopping_server_tells_also_who_began_before_the_last_tick",
        "assert 0 == 1",
    ),
    Mutation(
        "a stopping server gives time for a last request",
        SERVER,
        "        self.loop.call_later(LINGER, super().shutdown)\n",
        "        super().shutdown()\n",
        "highload/test_server.py::test_a_stopping_server_begins_no_request_behind_its_last_answer",
        "IncompleteReadError",
    ),
    Mutation(
        "a stopping server closes idle connections",
        SERVER,
        "        self.loop.call_later(LINGER, super().shutdown)\n",
        "",
        "highload/test_server.py::test_a_stopping_server_answers_what_it_has_begun",
        "TimeoutError",
    ),
    Mutation(
        "a stopping server answers who waits to be accepted",
        SERVER,
        "                    accepted.append(listener.accept()[0])\n",
        "                    break\n",
        "highload/test_server.py::test_a_stopping_server_answers_who_waits_to_be_accepted",
        "ConnectionResetError",
    ),
    Mutation(
        "Uvicorn skips the body of what was answered",
        UVICORN,
        "    def on_body(self, body: bytes) -> None:\n"
        "        if (self.parser.should_upgrade() and self._should_upgrade()) or self.cycle.response_complete:\n",
        "    def on_body(self, body: bytes) -> None:\n"
        "        if self.parser.should_upgrade() and self._should_upgrade():\n",
        ANSWERS,
        "assert [413] == [413, 200]",
    ),
    Mutation(
        "Uvicorn tells the application that a body is there",
        UVICORN,
        "            self.flow.pause_reading()\n        self.cycle.message_event.set()\n",
        "            self.flow.pause_reading()\n",
        ANSWERS,
        "assert [] == [413, 200]",
    ),
    Mutation(
        "Uvicorn starts the next request of a pipeline",
        UVICORN,
        "        if self.pipeline:\n",
        "        if False:\n",
        ANSWERS,
        "assert [201] == [201, 200]",
    ),
    Mutation(
        "Uvicorn reads on after an answer",
        UVICORN,
        "        # Unpause data reads if needed.\n        self.flow.resume_reading()\n",
        "",
        ANSWERS,
        "assert 'no answer any more' == 'open'",
    ),
    Mutation(
        "Uvicorn answers one request of a pipeline after the other",
        UVICORN,
        "        if existing_cycle is None or existing_cycle.response_complete:\n",
        "        if True:\n",
        ANSWERS,
        " diff: 20",
    ),
    Mutation(
        "Uvicorn keeps the order of a pipeline",
        UVICORN,
        "self.pipeline.appendleft(",
        "self.pipeline.append(",
        ANSWERS,
        "assert [200, 200, 201] == [200, 201, 200]",
    ),
    Mutation(
        "Uvicorn begins no request behind the last answer",
        UVICORN,
        "        if self.transport.is_closing():\n            return\n\n        self._unset",
        "        self._unset",
        "highload/test_server.py::test_a_stopping_server_begins_no_request_behind_its_last_answer",
        "assert not [{",
    ),
    Mutation(
        "Uvicorn ends a connection after its last answer",
        UVICORN,
        "                if not self.keep_alive:\n                    self.transport.close()\n",
        "",
        ANSWERS,
        "assert 'stays open' == 'closed'",
    ),
    Mutation(
        "Uvicorn ends a connection of HTTP/1.0",
        UVICORN,
        'keep_alive=http_version != "1.0" and self.parser',
        "keep_alive=self.parser",
        ANSWERS,
        "assert 'stays open' == 'closed'",
    ),
    Mutation(
        "Uvicorn answers what came before a last request",
        UVICORN,
        "lenient_data_after_close=True",
        "lenient_data_after_close=False",
        ANSWERS,
        "assert [400] == [200, 200, 200]",
    ),
    Mutation(
        "Uvicorn asks for a body that waits for that",
        UVICORN,
        '            self.transport.write(b"HTTP/1.1 100 Continue\\r\\n\\r\\n")\n',
        "",
        ANSWERS,
        "== [100, 201, 200]",
    ),
    Mutation(
        "Uvicorn gives each part of a body once",
        UVICORN,
        "        self.body = bytearray()\n        return message",
        "        return message",
        ANSWERS,
        "assert [422, 200] == [201, 200]",
    ),
    Mutation(
        "Uvicorn's timer leaves a connection in use alone",
        UVICORN,
        "        self._unset_keepalive_if_required()\n\n        try:\n",
        "        try:\n",
        "highload/test_server.py::test_a_request_may_take_longer_than_a_connection_may_be_idle",
        "IncompleteReadError",
    ),
    Mutation(
        "Uvicorn ends an idle connection",
        UVICORN,
        "            self.timeout_keep_alive_task = self.loop.call_later(\n"
        "                self.timeout_keep_alive, self.timeout_keep_alive_handler\n            )\n",
        "            pass\n",
        "highload/test_server.py::test_a_connection_ends_when_it_was_idle_and_not_before",
        "TimeoutError",
    ),
    Mutation(
        "Uvicorn waits for its tasks",
        UVICORN,
        "        self.tasks.add(task)\n",
        "",
        "highload/test_server.py::test_a_stopping_server_waits_for_a_shared_read_without_a_client",
        "assert not True",
    ),
    Mutation(
        "Uvicorn tells the application that a client went away",
        UVICORN,
        "            self.cycle.disconnected = True\n",
        "            pass\n",
        "highload/test_server.py::test_a_client_that_goes_away_before_its_body_is_there_gives_its_place_back",
        "TimeoutError",
    ),
    Mutation(
        "Uvicorn wakes the application when a client went away",
        UVICORN,
        "        if self.cycle is not None:\n            self.cycle.message_event.set()\n",
        "",
        "highload/test_server.py::test_a_client_that_goes_away_before_its_body_is_there_gives_its_place_back",
        "TimeoutError",
    ),
    Mutation(
        "Uvicorn closes no busy connection when it stops",
        UVICORN,
        "        if self.cycle is None or self.cycle.response_complete:\n            self.transport.close()\n"
        "        else:\n            self.cycle.keep_alive = False\n",
        "        self.transport.close()\n",
        "highload/test_server.py::test_a_stopping_server_answers_what_it_has_begun",
        "IncompleteReadError",
    ),
    Mutation(
        "what the database refuses is answered",
        "app/highload/http/problems.py",
        "    app.add_exception_handler(ContentRefused, on_content_refused)\n",
        "",
        "highload/test_refusals.py::test_a_refusal_is_answered",
        "assert 500 == 422",
    ),
    Mutation(
        "a missing parent is told apart from a conflict",
        "app/highload/database.py",
        "        kind = MissingReference if misses_reference(error) else Conflict\n",
        "        kind = Conflict\n",
        "highload/test_refusals.py::test_a_refusal_says_of_which_kind_it_is",
        "MissingReference",
    ),
    Mutation(
        "a restricted row is a conflict in SQLite, too",
        "app/highload/database.py",
        " or sqlite in SQLITE_CONFLICTS or restricts(error):",
        " or sqlite in SQLITE_CONFLICTS:",
        "highload/test_references.py::test_a_row_that_is_restricted_is_not_deleted",
        "assert 422 == 409",
    ),
    Mutation(
        "a missing parent is told apart at a commit, too",
        "app/highload/database.py",
        '    if not re.search(rf"\\W{name}\\W", where):\n        return True\n',
        "",
        "highload/test_refusals.py::test_a_refusal_says_of_which_kind_it_is",
        "MissingReference",
        DATABASE,
    ),
    Mutation(
        "a table that refers to itself misses a parent, too",
        "app/highload/database.py",
        r"""    return re.match(rf'\s*(INSERT|UPDATE\s+("?\w+"?\.)?"?{name}\b)', statement, re.IGNORECASE) is not None
""",
        "    return False\n",
        "highload/test_refusals.py::test_a_refusal_says_of_which_kind_it_is",
        "MissingReference",
        DATABASE,
    ),
    Mutation(
        "a number that SQLite cannot hold is refused",
        "app/highload/database.py",
        "    except (OverflowError, UnicodeEncodeError) as error:\n",
        "    except UnicodeEncodeError as error:\n",
        "highload/test_refusals.py::test_a_refusal_says_of_which_kind_it_is",
        "OverflowError",
    ),
    Mutation(
        "a mistake in a statement is no outage of SQLite",
        "app/highload/database.py",
        '    mistaken = sqlite_name(error) == "SQLITE_ERROR"\n',
        "    mistaken = False\n",
        "highload/test_refusals.py::test_a_mistake_in_a_statement_is_no_refusal",
        "DatabaseUnavailable",
    ),
    Mutation(
        "SQLite enforces foreign keys",
        "app/highload/sqlite.py",
        '    cursor.execute("PRAGMA foreign_keys = ON")\n',
        "",
        "highload/test_refusals.py::test_a_refusal_says_of_which_kind_it_is",
        "DID NOT RAISE",
    ),
    Mutation(
        "a migration of SQLite keeps what refers to a table that is made anew",
        "app/highload/migrations.py",
        '    connection.exec_driver_sql("PRAGMA foreign_keys = OFF")\n',
        "",
        "test_migrations.py::test_sqlite_keeps_the_rows_that_refer_to_a_table_that_is_made_anew",
        "assert 0 == 1",
    ),
    Mutation(
        "a migration of SQLite is one transaction",
        "app/highload/migrations.py",
        '    connection.exec_driver_sql("BEGIN IMMEDIATE")\n',
        "",
        "test_migrations.py::test_sqlite_undoes_a_migration_that_leaves_a_row_without_its_parent",
        "'children'",
    ),
    Mutation(
        "a migration of SQLite leaves no row without its parent",
        "app/highload/migrations.py",
        '    for table, _, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):\n',
        "    for table, parent in ():\n",
        "test_migrations.py::test_sqlite_undoes_a_migration_that_leaves_a_row_without_its_parent",
        "DID NOT RAISE",
    ),
    Mutation(
        "an empty migration is not written",
        "app/highload/migrations.py",
        "        scripts.clear()\n",
        "",
        "test_migrations.py::test_an_empty_migration_is_written_only_for_who_asks_for_it",
        "Extra items in the left set",
    ),
    Mutation(
        "a migration does without the application",
        "app/highload/migrations.py",
        '    if isinstance(part, TypeDecorator) and not type(part).__module__.startswith("sqlalchemy."):\n',
        "    if False:\n",
        "test_migrations.py::test_a_written_migration_passes_the_checks",
        "F821",
    ),
    Mutation(
        "a migration that was written with SQLite has the types of PostgreSQL",
        "app/highload/migrations.py",
        "    migration.impl = PostgresqlImpl(POSTGRESQL, None, True, None, None, {})\n",
        "",
        "test_migrations.py::test_a_written_migration_passes_the_checks",
        "F821",
    ),
    Mutation(
        "a default is right for each database",
        "app/highload/migrations.py",
        '    if kind == "server_default":\n',
        "    if False:\n",
        "test_migrations.py::test_a_written_migration_of_each_type_runs_and_can_be_undone",
        "now()",
    ),
    Mutation(
        "an enumeration is made once",
        "app/highload/migrations.py",
        ", create_type=False)",
        ")",
        "test_migrations.py::test_a_written_migration_of_each_type_runs_and_can_be_undone",
        'type "colour" already exists',
        DATABASE,
    ),
    Mutation(
        "an enumeration is dropped with its columns",
        "app/highload/migrations.py",
        "        downgrade.ops.append(",
        "        (",
        "test_migrations.py::test_a_written_migration_of_each_type_runs_and_can_be_undone",
        'type "colour" already exists',
        DATABASE,
    ),
    Mutation(
        "an enumeration of another table is left alone",
        "app/highload/migrations.py",
        " and enum.name not in names}",
        "}",
        "test_migrations.py::test_a_written_migration_of_each_type_runs_and_can_be_undone",
        'type "colour" already exists',
        DATABASE,
    ),
    Mutation(
        "SQL is printed without a server",
        "alembic/env.py",
        "    if context.is_offline_mode():\n",
        "    if False:\n",
        "test_migrations.py::test_the_sql_is_printed_without_a_server",
        "does not answer",
    ),
    Mutation(
        "a migrator that finds no revision fails",
        "alembic/env.py",
        "    refuse_to_upgrade_without_revisions()\n",
        "",
        "test_migrations.py::test_a_migrator_that_finds_no_revision_fails",
        "DID NOT RAISE",
    ),
    Mutation(
        "a process tells that the database is behind",
        "app/main.py",
        ', "schema": schema.check}',
        "}",
        "test_migrations.py::test_a_schema_that_is_behind_is_told",
        "KeyError: 'detail'",
    ),
    Mutation(
        "a database of a newer release is used",
        "app/highload/schema.py",
        "        if found - self._known:\n",
        "        if False:\n",
        "highload/test_schema.py::test_a_database_of_a_newer_release_is_used",
        "NotReady",
    ),
    Mutation(
        "a process of the worker may start slowly",
        "app/highload/worker.py",
        '        "worker_proc_alive_timeout": LONGEST_START,\n',
        "",
        "highload/test_queue.py::test_a_killed_process_of_a_worker_loses_nothing",
        "Timed out",
        QUEUE,
    ),
    Mutation(
        "a worker comes back before the broker knows that it was gone",
        "app/highload/worker.py",
        '        "worker_enable_remote_control": False,\n',
        "",
        "highload/test_queue.py::test_a_worker_comes_back_before_the_broker_knows_that_it_was_gone",
        "RESOURCE_LOCKED",
        QUEUE,
    ),
    Mutation(
        "a connection sets nothing that a pooler refuses",
        "app/highload/database.py",
        '{"application_name": name}',
        '{"application_name": name, "jit": "off"}',
        "highload/test_database.py::test_a_connection_sets_nothing_that_a_pooler_refuses",
        "jit",
    ),
    Mutation(
        "an address that clients read differently is refused",
        "app/highload/addresses.py",
        r"(?:[^\s@/?#\[\]\\]*@)?",
        r"(?:[^\s@?#\[\]\\]*@)?",
        "highload/test_addresses.py::test_a_character_that_clients_read_differently_is_refused[/]",
        "DID NOT RAISE",
    ),
    Mutation(
        "a password that is set apart may have any characters",
        "app/highload/addresses.py",
        "quote(password, safe='')",
        "password",
        "test_config.py::test_a_password_of_any_characters_is_set_apart",
        "P@ss",
    ),
    Mutation(
        "a refused setting is not shown",
        "app/config.py",
        "        hide_input_in_errors=True,\n",
        "",
        "test_config.py::test_no_message_shows_a_password",
        "secret",
    ),
    Mutation(
        "a silent client is hung up on",
        SERVER,
        "            self._watching = asyncio.create_task(self._deadlines.watch())\n",
        "            pass\n",
        "highload/test_bad_clients.py::test_a_client_that_stalls_is_hung_up_on[nothing]",
        "TimeoutError",
    ),
    Mutation(
        "a head that begins too early has a deadline",
        SERVER,
        " and not has_begun\n",
        "\n",
        "highload/test_bad_clients.py::test_a_head_behind_an_answer_that_is_awaited_has_a_deadline",
        "TimeoutError",
    ),
    Mutation(
        "a client that reads nothing is hung up on",
        SERVER,
        "        if self.flow.write_paused or self.transport.is_closing():\n",
        "        if False:\n",
        "highload/test_bad_clients.py::test_a_client_that_does_not_read_is_hung_up_on[/large]",
        "TimeoutError",
    ),
    Mutation(
        "who is served waits for nobody",
        SERVER,
        "is_idle or is_served or",
        "is_idle or",
        "highload/test_bad_clients.py::test_an_idle_client_and_one_whose_answer_takes_long_stay",
        "IncompleteReadError",
    ),
    Mutation(
        "who is idle may stay",
        SERVER,
        "is_idle or is_served or",
        "is_served or",
        "highload/test_bad_clients.py::test_an_idle_client_and_one_whose_answer_takes_long_stay",
        "Error",
    ),
    Mutation(
        "who moves has more time",
        "app/highload/http/deadlines.py",
        " + (awaited.moved - wait.moved) / BYTES_PER_SECOND",
        "",
        "highload/test_bad_clients.py::test_who_moves_has_more_time",
        "assert",
    ),
    Mutation(
        "who reads on has time again",
        SERVER,
        "        super().pause_writing()\n        self.pause = object()\n",
        "        super().pause_writing()\n",
        "highload/test_bad_clients.py::test_who_reads_on_has_time_again",
        "is not",
    ),
    Mutation(
        "another thing to wait for has its own time",
        "app/highload/http/deadlines.py",
        " or wait.what is not awaited.what",
        "",
        "highload/test_bad_clients.py::test_who_moves_has_more_time",
        "assert",
    ),
    Mutation(
        "a request that waits for its body takes no place",
        "app/highload/http/admission.py",
        "            self.leave()\n            try:\n                message = await receive()\n"
        "            finally:\n                self.enter()\n",
        "            message = await receive()\n",
        "highload/test_bad_clients.py::test_who_waits_for_its_client_takes_no_place",
        "HTTP/1.1 503",
    ),
    Mutation(
        "a request that nobody reads takes no place",
        "app/highload/http/admission.py",
        "            self.leave()\n            try:\n                await send(message)\n"
        "            finally:\n                self.enter()\n",
        "            await send(message)\n",
        "highload/test_bad_clients.py::test_who_waits_for_its_client_takes_no_place",
        "HTTP/1.1 503",
    ),
    Mutation(
        "a place that was left may be taken",
        "app/highload/http/admission.py",
        "            if self._inside > self._limit and not always:\n",
        "            if False:\n",
        "highload/test_bad_clients.py::test_who_comes_back_with_its_body_may_find_the_place_taken",
        "HTTP/1.1 201",
    ),
    Mutation(
        "a head has a bound",
        SERVER,
        "        if self._without_result > LONGEST_HEAD:\n",
        "        if False:\n",
        "highload/test_bad_clients.py::test_a_head_without_end_is_refused[one field]",
        "TimeoutError",
    ),
    Mutation(
        "the end of a body has a bound",
        SERVER,
        "        if self._without_result > LONGEST_HEAD:\n            self._refuse_head()\n",
        '        if self._without_result > LONGEST_HEAD and "method" not in self.scope:\n'
        "            self._refuse_head()\n",
        "highload/test_bad_clients.py::test_an_end_of_a_body_without_end_is_not_read[one trailer]",
        "TimeoutError",
    ),
    Mutation(
        "a body counts for no head",
        SERVER,
        "        self._without_result = 0\n        super().on_body(body)\n",
        "        super().on_body(body)\n",
        ANSWERS,
        "assert",
    ),
    Mutation(
        "a pipeline is parsed as it is answered",
        SERVER,
        "        while self.flow.unparsed and not self.pipeline and",
        "        while self.flow.unparsed and",
        "highload/test_bad_clients.py::test_a_pipeline_is_read_as_it_is_answered",
        "assert",
    ),
    Mutation(
        "what waited to be parsed is parsed",
        SERVER,
        "            self.loop.call_soon(self._go_on)\n",
        "            pass\n",
        "highload/test_bad_clients.py::test_a_pipeline_is_read_as_it_is_answered",
        "TimeoutError",
    ),
    Mutation(
        "reading goes on after a pipeline",
        SERVER,
        "            self.flow.resume_reading()\n\n    def _refuse_head",
        "            pass\n\n    def _refuse_head",
        "highload/test_bad_clients.py::test_a_head_behind_a_large_pipeline_is_read",
        "TimeoutError",
    ),
    Mutation(
        "reading waits for a pipeline",
        SERVER,
        "        if self.read_paused and not self._waiting and not self.unparsed:\n",
        "        if self.read_paused:\n",
        "highload/test_bad_clients.py::test_a_pipeline_is_read_as_it_is_answered",
        "assert",
    ),
    Mutation(
        "a pipeline that is left is forgotten",
        SERVER,
        "            cycle.on_response = nothing\n",
        "            pass\n",
        "highload/test_bad_clients.py::test_a_pipeline_that_is_left_is_forgotten",
        "TimeoutError",
    ),
    Mutation(
        "a large answer is not copied for each client",
        "app/highload/http/joined_writes.py",
        "            self._transport.writelines([head, body])\n",
        "            self._transport.write(head + body)\n",
        "highload/test_bad_clients.py::test_answers_that_nobody_reads_are_kept_once",
        "assert",
    ),
    Mutation(
        "the head and the body of an answer leave at once",
        "app/highload/http/joined_writes.py",
        "            self._held = data\n            self._loop.call_soon(self.flush)\n",
        "            self._transport.write(data)\n",
        "highload/test_joined_writes.py::test_a_head_and_its_body_are_one_write",
        "assert [b'head '] == []",
    ),
    Mutation(
        "an offer of another protocol takes no body away",
        SERVER,
        '        return self.parser.get_method() != b"CONNECT"\n',
        "        return False\n",
        "highload/test_bad_clients.py::test_an_offer_of_another_protocol_takes_no_body_away[0]",
        "assert b'GET /' in",
    ),
    Mutation(
        "what follows an offer of another protocol is kept",
        SERVER,
        'b"", self._piece[offset:]]) + self.flow.unparsed',
        'b"", self._piece[offset:]])',
        "highload/test_bad_clients.py::test_an_offer_of_another_protocol_in_a_large_pipeline",
        "TimeoutError",
    ),
    Mutation(
        "a refusal before the body was asked for ends the connection",
        SERVER,
        "            self._keeps_alive, self.cycle.keep_alive = self.cycle.keep_alive, False\n",
        "            self._keeps_alive = True\n",
        "highload/test_bad_clients.py::test_a_refusal_before_the_body_was_asked_for_ends_the_connection[too large]",
        "assert",
    ),
    Mutation(
        "the server leaves a refusal before the body was asked for to Uvicorn",
        SERVER,
        "            and not self.expect_100_continue\n",
        "",
        "highload/test_bad_clients.py::"
        "test_a_refusal_before_the_body_was_asked_for_ends_the_connection[refused when full]",
        "assert",
    ),
    Mutation(
        "a body that was asked for leaves the connection open",
        SERVER,
        "            self.cycle.keep_alive = self._keeps_alive\n",
        "            pass\n",
        "highload/test_bad_clients.py::test_a_body_that_was_asked_for_leaves_the_connection_open",
        "assert",
    ),
    Mutation(
        "a forged answer is not believed",
        "app/highload/reads/answers.py",
        ' if lengths == [b"%d" % len(body)] else None',
        "",
        "highload/test_answers.py::test_a_forged_answer_is_none[a second answer]",
        "is None",
    ),
    Mutation(
        "pages share the rest of their heads",
        "app/highload/reads/answers.py",
        "        place = 1 if name == LINK else len(self.headers)\n",
        "        place = len(self.headers)\n",
        "highload/test_answers.py::test_pages_share_all_but_the_front_of_their_heads",
        "assert 2 == 1",
    ),
    Mutation(
        "the link of a kept answer is safe",
        "app/highload/reads/answers.py",
        " or None in own or fields is None:\n",
        " or fields is None:\n",
        "highload/test_answers.py::test_a_forged_answer_is_none[a line feed in the link]",
        "is None",
    ),
    Mutation(
        "an answer is read from its place in what is kept",
        "app/highload/reads/answers.py",
        'kept.find(b"\\r\\n\\r\\n", start)',
        'kept.find(b"\\r\\n\\r\\n")',
        "highload/test_answers.py::test_an_answer_is_the_same_after_it_was_kept",
        "assert None == Answer(",
    ),
    Mutation(
        "a kept answer sets no cookie",
        "app/highload/reads/answers.py",
        " or name in NEVER_KEPT:\n",
        ":\n",
        "highload/test_answers.py::test_a_forged_answer_is_none[a cookie]",
        "is None",
    ),
    Mutation(
        "a kept answer has safe fields",
        "app/highload/reads/answers.py",
        " or UNSAFE.search(value) or name",
        " or name",
        "highload/test_answers.py::test_a_forged_answer_is_none[a line feed]",
        "is None",
    ),
    Mutation(
        "HEAD is GET",
        "app/highload/http/head.py",
        '{**scope, "method": "GET"}',
        "scope",
        "test_items.py::test_head_is_get_without_the_body",
        "assert (405",
    ),
    Mutation(
        "JSON is in UTF-8",
        "app/highload/http/body_limit.py",
        "                    receive = in_utf8(receive)\n",
        "                    pass\n",
        "test_items.py::test_json_in_another_encoding_is_refused[utf-16]",
        "assert 201 == 400",
    ),
    Mutation(
        "space around a key does not count",
        "app/highload/idempotency.py",
        'key.strip(" \\t")',
        "key",
        "highload/test_bad_clients.py::test_space_around_an_idempotency_key_does_not_count",
        "assert",
    ),
    Mutation(
        "a record is one line",
        "app/highload/logs.py",
        "return json.dumps(line, default=str)",
        "return repr(line)",
        "highload/test_logs.py::test_a_record_is_one_line_of_json",
        "JSONDecodeError",
    ),
    Mutation(
        "libraries log nothing of clients",
        "app/highload/logs.py",
        '        if record.name.partition(".")[0] == OWN:\n            fields |=',
        "        if record.name:\n            fields |=",
        "highload/test_logs.py::test_what_a_library_adds_to_a_record_is_not_shown",
        "of a client",
    ),
    Mutation(
        "the log repeats nothing that an exception quotes",
        "app/highload/logs.py",
        " and not isinstance(error, QUOTING)",
        "",
        "highload/test_logs.py::test_what_an_exception_quotes_is_not_shown",
        "what-a-client-sends",
    ),
    Mutation(
        "the reason of the database is not in the message of a refusal",
        "app/highload/database.py",
        "self.words = words",
        "self.words = words; self.args = (words,)",
        "highload/test_logs.py::test_what_an_exception_quotes_is_not_shown",
        "what-a-client-sends",
    ),
    Mutation(
        "a run that many share has an id of its own",
        "app/highload/reads/sharing.py",
        "        REQUEST_ID.set(uuid7().hex)\n",
        "",
        "highload/test_logs.py::test_a_run_that_many_share_has_an_id_of_its_own",
        "request_id",
    ),
    Mutation(
        "the id of a trusted proxy counts under another protocol, too",
        SERVER,
        "if not is_ours and isinstance(",
        "if not isinstance(self, Server) and isinstance(",
        "highload/test_logs.py::test_a_run_that_many_share_has_an_id_of_its_own",
        "of-0",
    ),
    Mutation(
        "at debug, drivers do not print what clients send",
        "app/highload/logs.py",
        "max(logging.INFO, logging.getLevelNamesMapping()[level.upper()])",
        "level.upper()",
        "test_items_logs.py::test_each_line_is_json_and_holds_nothing_of_a_client",
        "what-a-client-sends",
    ),
    Mutation(
        "only a trusted proxy gives a request its id",
        SERVER,
        'request_id_of(scope["headers"], trusted=self._trusted)',
        'request_id_of(scope["headers"], trusted=True)',
        "highload/test_logs.py::test_only_a_proxy_gives_an_id",
        "of-the-proxy:1",
    ),
    Mutation(
        "a shared answer has the id of no client",
        "app/highload/reads/answers.py",
        ', b"x-request-id"])',
        "])",
        "highload/test_logs.py::test_an_id_that_the_application_sets_stays_unless_many_share_it",
        "one more item: 'of-the-proxy:1'",
    ),
    Mutation(
        "a reload takes nothing from the release before",
        "gunicorn.conf.py",
        'told = python("-m", "app.config")\n',
        'import app.routes.items\ntold = python("-m", "app.config")\n',
        "test_items_release.py::test_a_reload_is_the_new_release_wholly",
        "assert",
    ),
    Mutation(
        "a release that does not start leaves the old one",
        "gunicorn.conf.py",
        "        if start.returncode:\n",
        "        if False:\n",
        "test_items_release.py::test_a_release_that_does_not_start_leaves_the_old_one",
        "Error",
    ),
    Mutation(
        "the latency of an open loop holds the wait for a connection",
        "loadtest/open_loop.py",
        "                connection = await self._connection()\n",
        "                due, connection = time.monotonic(), await self._connection()\n",
        "test_loadtest_open_loop.py::test_a_latency_counts_from_the_time_at_which_its_request_was_due",
        ">= ((20 * 0.05) -",
    ),
    Mutation(
        "a client of an open loop says how often it was late",
        "loadtest/open_loop.py",
        "        self.late += delay >= LATE\n",
        "",
        "test_loadtest_open_loop.py::test_a_client_that_is_late_says_so",
        "assert 0 >= 5",
    ),
    Mutation(
        "what lies within the noise of two runs gets no arrow",
        "loadtest/noise.py",
        "    limit = STUDENT[int(freedom) - 1] * math.sqrt(sum(parts))\n",
        "    limit = 0.0\n",
        "test_loadtest_noise.py::test_runs_that_are_alike_hardly_ever_get_an_arrow",
        "assert 500 <=",
    ),
]

# Clients of two processes notice these: no order of their requests explains the answers.
SEEN_BY_CLIENTS = [
    "a caller joins only a flush that has not begun",
    "a change ends the slot of its row",
    "a new row ends the lists",
    "an answer is kept with the generation from before the query",
    "an answer of an older generation does not count",
]
MUTATIONS += [
    mutation._replace(
        guarantee=f"{mutation.guarantee}, as clients see it",
        caught_by="test_items_consistency.py::test_what_two_processes_answer_is_linearizable[Redis]",
        message="no order explains",
        servers=CACHE,
    )
    for mutation in MUTATIONS
    if mutation.guarantee in SEEN_BY_CLIENTS
]


class Verdict(NamedTuple):
    """How a run of tests ended: pytest's exit status, and why some failed."""

    status: int
    reasons: str
    output: str


OPTIONS = ["-q", "-p", "anyio", "-p", "no:cacheprovider"]


def environment_of_run(**variables: str) -> dict[str, str]:
    """Return the environment of a run of pytest with few plugins, which compiles what is not compiled yet."""
    environment = clean_environment() | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | variables
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def run_pytest(project: Path, *arguments: str, **variables: str) -> Run:
    """Run pytest in a project, in a process of its own."""
    done = subprocess.run(
        [project / ".venv/bin/python", "-m", "pytest", *OPTIONS, *arguments],
        cwd=project,
        env=environment_of_run(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Run(done.returncode, done.stdout)


def waits(mutation: Mutation) -> bool:
    """Whether its test waits for what does not come."""
    return "Timeout" in mutation.message


def judge(project: Path, mutation: Mutation, urls: Urls, warm: WarmPytest) -> Verdict:
    """Take the text of a guarantee out of a project, and run the test that must notice it."""
    file = project / mutation.file
    of_a_package = not file.exists()
    if of_a_package:
        # A package that the project uses: the copy in its directory comes before the installed one.
        package = mutation.file.partition("/")[0]
        (installed,) = (project / ".venv/lib").glob(f"*/site-packages/{package}")
        shutil.copytree(installed, project / package)
    source = file.read_text(encoding="utf-8")
    assert source.count(mutation.text) == 1, f"{mutation.file} must hold this once: {mutation.text}"
    file.write_text(source.replace(mutation.text, mutation.instead), encoding="utf-8")
    report = project / "report.xml"
    variables = {f"TEST_{name}": url for name, url in urls.items()}
    if waits(mutation):
        # Nobody needs to wait for it for long.
        variables["TEST_PATIENCE"] = "20"
    arguments = ["-x", f"--junitxml={report}", f"tests/{mutation.caught_by}"]
    if of_a_package:
        # The warm process may hold that package as it was.
        done = run_pytest(project, *arguments, **variables)
    else:
        environment = environment_of_run(**variables)
        done = warm.run(project, [*OPTIONS, *arguments], environment, project / "output.txt", PATIENCE)
    cases = ET.parse(report) if report.exists() else ET.ElementTree(ET.Element("nothing"))
    failures = [line for failure in cases.iter("failure") for line in (failure.text or "").splitlines()]
    # An E marks what was wrong, and a bar the parts of an exception group; the other lines quote the source.
    reasons = "\n".join(line for line in failures if line.lstrip().startswith(("E ", "| ")))
    return Verdict(done.returncode, reasons, done.stdout)


def copy_of(project: Path, directory: Path) -> Path:
    """Copy a project with what is compiled of it, and lend the copy the dependencies."""
    copy = directory / project.name
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns(".venv"))
    (copy / ".venv").symlink_to(project / ".venv")
    return copy


def selected(request: pytest.FixtureRequest) -> set[object]:
    """Return the mutations that this run of the tests needs."""
    functions = [item for item in request.session.items if isinstance(item, pytest.Function)]
    ours = [
        function
        for function in functions
        if function.originalname == test_without_its_line_a_guarantee_is_missed.__name__
    ]
    return {function.callspec.params["mutation"] for function in ours}


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[Mutation, Future[Verdict]]]:
    """The verdict on each mutation.

    Four run at a time: one without a server, one that waits for what does not come, one with the broker, and one with
    another database of the same server.
    """
    original = render(tmp_path_factory.mktemp("original"), **core_variants()[0])
    needed = selected(request)
    mutations = [mutation for mutation in MUTATIONS if mutation in needed]
    verdicts: dict[Mutation, Future[Verdict]] = {}
    with ExitStack() as stack:
        starting = None
        if any(mutation.servers for mutation in mutations) and docker_is_there():
            starter = stack.enter_context(ThreadPoolExecutor(1))
            starting = starter.submit(stack.enter_context, servers_of(original))
        install(original, tmp_path_factory)
        python = original / ".venv/bin/python"
        warm = [stack.enter_context(WarmPytest(python, environment_of_run())) for _ in range(4)]
        lanes = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(4)]
        lane_of = {NONE: 0, QUEUE: 1, CACHE: 2, DATABASE: 2}

        def submit(servers: Servers, urls: Urls) -> None:
            for mutation in mutations:
                if mutation.servers == servers:
                    lane = 3 if waits(mutation) and not servers else lane_of[servers]
                    copy = copy_of(original, tmp_path_factory.mktemp("copy"))
                    verdicts[mutation] = lanes[lane].submit(judge, copy, mutation, urls, warm[lane])

        # So that no copy needs to compile what it has in common with the others.
        run_pytest(original, "--collect-only")
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


def test_each_guarantee_has_its_line(tmp_path: Path) -> None:
    """Said in a second, and not only when the mutations run."""
    project = render(tmp_path, **core_variants()[0])
    ours = [mutation for mutation in MUTATIONS if (project / mutation.file).exists()]
    assert len(ours) > 300
    lost = [
        mutation.guarantee
        for mutation in ours
        if (project / mutation.file).read_text(encoding="utf-8").count(mutation.text) != 1
    ]
    assert not lost, "name a line that is there once"


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guarantee)
def test_without_its_line_a_guarantee_is_missed(
    request: pytest.FixtureRequest, verdicts: dict[Mutation, Future[Verdict]], mutation: Mutation
) -> None:
    if mutation.servers:
        request.getfixturevalue("docker")
    verdict = verdicts[mutation].result()
    assert verdict.status == pytest.ExitCode.TESTS_FAILED, verdict.output
    assert mutation.message in verdict.reasons, verdict.output
