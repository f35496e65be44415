"""Whatever comes in: properties that hold for all inputs."""

import asyncio
import base64
from datetime import datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

import httpx2
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from app.answers import Answer, answer_of
from app.pagination import EPOCH, Position, decode_cursor, encode_cursor
from app.reads import SharedReads
from tests.test_reads import ROUTES, Application

# The longest text that JSON in UTF-8 can carry, without the NUL that PostgreSQL refuses.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
MOMENTS = st.integers(0, 2**52).map(lambda microseconds: EPOCH + timedelta(microseconds=microseconds))
HEADER_NAMES = st.from_regex(rb"[a-z][a-z-]{0,10}", fullmatch=True)
HEADER_VALUES = st.from_regex(rb"[!-~]([ -~]{0,10}[!-~])?", fullmatch=True)
WITH_CLIENT = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


def encode_cursor_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


@given(MOMENTS, st.uuids())
def test_a_cursor_leads_back_to_its_position(moment: datetime, item_id: UUID) -> None:
    position = Position(moment, item_id)
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
    answer = Answer(200, [(b"etag", b'"1"'), *headers], body)
    assert Answer.load(answer.dump()) == answer


@given(
    st.lists(st.tuples(st.sampled_from(["limit", "cursor", "other", "LIMIT"]), st.text(max_size=5)), max_size=5),
    st.lists(st.tuples(st.sampled_from(["limit", "cursor", "other", "LIMIT"]), st.text(max_size=5)), max_size=5),
)
def test_a_key_is_what_the_application_reads(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> None:
    """Two requests share an answer exactly if the application would see the same declared parameters."""
    reads = SharedReads(Application(), ROUTES, max_waiting=10)

    def key_of(query: list[tuple[str, str]]) -> str | None:
        raw = urlencode(query).encode()
        return reads.key_of({"method": "GET", "path": "/items", "query_string": raw, "headers": []})

    def seen(query: list[tuple[str, str]]) -> dict[str, str]:
        return {name: value for name, value in dict(query).items() if name in ROUTES["/items"]}

    assert (key_of(one) == key_of(other)) is (seen(one) == seen(other))


@WITH_CLIENT
@given(name=TEXT.filter(lambda text: 1 <= len(text) <= 255), description=st.none() | TEXT)
async def test_every_valid_item_is_stored_as_it_is(
    client: httpx2.AsyncClient, name: str, description: str | None
) -> None:
    created = await client.post("/items", json={"name": name, "description": description})
    assert created.status_code == 201, created.text
    fetched = await client.get(created.headers["location"])
    assert fetched.json() == created.json()
    assert (fetched.json()["name"], fetched.json()["description"]) == (name, description)


@WITH_CLIENT
@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists))
async def test_every_other_document_is_refused(client: httpx2.AsyncClient, document: object) -> None:
    response = await client.post("/items", json=document)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"


@WITH_CLIENT
@given(
    key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255),
    names=st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=4),
)
async def test_a_key_means_the_first_request_that_used_it(
    client: httpx2.AsyncClient, key: str, names: list[str]
) -> None:
    answers = [await client.post("/items", json={"name": name}, headers={"Idempotency-Key": key}) for name in names]
    first = answers[0].json()
    assume(answers[0].status_code == 201)  # else an earlier example used this key with another body
    for name, answer in zip(names, answers, strict=True):
        if name == first["name"]:
            assert (answer.status_code, answer.json()) == (201, first)
        else:
            assert answer.status_code == 422


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_an_answer_in_pieces_is_one_answer(pieces: list[bytes]) -> None:
    async def application(_: object, __: object, send: object) -> None:
        assert callable(send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    answer = asyncio.run(answer_of(application, {"path": "/items"}))
    assert answer.body == b"".join(pieces)
    assert answer.headers[0][0] == b"etag"
