"""Whatever comes in: properties that hold for all inputs."""

import asyncio
import base64
from datetime import datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from hypothesis import assume, given
from hypothesis import strategies as st

from app.highload.pagination import EPOCH, Position, decode_cursor, encode_cursor
from app.highload.reads.answers import NEVER_KEPT, Answer, answer_of
from tests.highload.notes import notes_service

MOMENTS = st.integers(0, 2**52).map(lambda microseconds: EPOCH + timedelta(microseconds=microseconds))
HEADER_NAMES = st.from_regex(rb"[a-z][a-z-]{0,10}", fullmatch=True)
HEADER_VALUES = st.from_regex(rb"[!-~]([ -~]{0,10}[!-~])?", fullmatch=True)
DECLARED = ("limit", "cursor")
QUERIES = st.lists(st.tuples(st.sampled_from([*DECLARED, "other", "LIMIT"]), st.text(max_size=5)), max_size=5)


def encode_cursor_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


@given(MOMENTS, st.uuids())
def test_a_cursor_leads_back_to_its_position(moment: datetime, row_id: UUID) -> None:
    position = Position(moment, row_id)
    assert decode_cursor(encode_cursor(position)) == position


@given(st.text() | st.binary(min_size=24, max_size=24).map(encode_cursor_of))
def test_a_cursor_is_refused_or_canonical(cursor: str) -> None:
    try:
        position = decode_cursor(cursor)
    except ValueError:
        return
    assert encode_cursor(position) == cursor


@given(st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES)), st.binary())
def test_every_answer_survives_its_dump(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    assume(NEVER_KEPT.isdisjoint(name for name, _ in headers) and b"content-length" not in dict(headers))
    answer = Answer(200, [(b"etag", b'"1"'), (b"content-length", b"%d" % len(body)), *headers], body)
    assert Answer.load(answer.dump()) == answer


@given(QUERIES, QUERIES)
def test_a_key_is_what_the_application_reads(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    """Two requests share an answer exactly if each declared parameter has the same values, in the same order."""
    service = notes_service(database_url="sqlite+aiosqlite://")
    service.build_middleware_stack()

    def key_of(query: list[tuple[str, str]]) -> str:
        raw = urlencode(query).encode()
        scope = {"type": "http", "method": "GET", "path": "/notes", "query_string": raw, "headers": []}
        read = service.reads.read_at_once(scope)
        assert read is not None
        return read.key

    def seen(query: list[tuple[str, str]]) -> dict[str, list[str]]:
        return {name: [value for given_name, value in query if given_name == name] for name in DECLARED}

    assert (key_of(one) == key_of(other)) is (seen(one) == seen(other))


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_an_answer_in_pieces_is_one_answer(pieces: list[bytes]) -> None:
    async def application(_: object, __: object, send: object) -> None:
        assert callable(send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    answer = asyncio.run(answer_of(application, {"path": "/notes"}))
    assert answer.body == b"".join(pieces)
    assert answer.headers[0][0] == b"etag"
