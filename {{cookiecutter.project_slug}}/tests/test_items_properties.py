"""Whatever comes in: properties that hold for all inputs."""

import httpx2
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

# The longest text that JSON in UTF-8 can carry, without the NUL that PostgreSQL refuses.
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
WITH_CLIENT = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


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
    headers = {"Idempotency-Key": key}
    answers = [await client.post("/items", json={"name": name}, headers=headers) for name in names]
    first = answers[0].json()
    assume(answers[0].status_code == 201)  # else an earlier example used this key with another body
    for name, answer in zip(names, answers, strict=True):
        if name == first["name"]:
            assert (answer.status_code, answer.json()) == (201, first)
        else:
            assert answer.status_code == 422
