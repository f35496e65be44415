import httpx2
import pytest


@pytest.mark.parametrize("path", ["/items", "/items/{id}"])
async def test_conditional_requests_work_end_to_end(client: httpx2.AsyncClient, path: str) -> None:
    item = (await client.post("/items", json={"name": "x"})).json()
    address = path.format(**item)
    first = await client.get(address)
    again = await client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    await client.patch(f"/items/{item['id']}", json={"name": "y"})
    changed = await client.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200


async def test_a_trailing_slash_leads_nowhere(client: httpx2.AsyncClient) -> None:
    """A redirection would lead to whatever Host the request names."""
    assert (await client.get("/items/")).status_code == 404
