"""Who has no right key gets nothing from the service, and changes nothing."""

from pathlib import Path

from app.config import Settings
from app.highload.http.keys import line_of
from app.main import create_app
from tests.break_in import BOTH, READER, STRANGER, break_in, write_keys
from tests.conftest import Serve, lines_of, running

AS_BOTH = {"Authorization": f"Bearer {BOTH}"}
TEXT = "nobody may read this"


async def test_nobody_gets_in_without_the_right_key(serve: Serve, tmp_path: Path) -> None:
    async with serve(api_keys_file=write_keys(tmp_path / "keys")) as client:
        created = await client.post("/items", json={"name": TEXT}, headers=AS_BOTH)
        listed = await client.get("/items", headers=AS_BOTH)
        assert TEXT in listed.text
        await break_in(client, "/items", created.headers["location"], TEXT.encode())
        assert (await client.get("/items", headers=AS_BOTH)).json() == listed.json()


async def test_each_process_reads_the_keys_when_it_starts(serve: Serve, tmp_path: Path) -> None:
    """A reload starts new processes (tests/test_items_release.py)."""
    file = write_keys(tmp_path / "keys")
    seen = []
    for _ in range(2):
        async with serve(api_keys_file=file) as client:
            fields = [{"Authorization": f"Bearer {key}"} for key in (BOTH, STRANGER)]
            seen.append([(await client.get("/items", headers=one)).status_code for one in fields])
        file.write_text(line_of(STRANGER, name="stranger", scopes=["read"]))
    assert seen == [[200, 401], [401, 200]]


async def test_the_log_says_how_open_the_service_is(database_url: str, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys")
    for settings, said in (
        ({}, []),
        ({"api_keys_file": keys}, ["The service is guarded by 4 API keys, of which 1 has expired"]),
        ({"rate_limit": "9/min"}, ["The service is open to everybody who reaches it, and each worker takes"]),
    ):
        app = create_app(Settings(_env_file=None, database_url=database_url, web_concurrency=1, **settings))
        with lines_of("app.main", level=0) as lines:
            async with running(app):
                pass
        told = [line for line in lines if line.startswith("The service is ")]
        assert len(told) == len(said)
        assert all(line.startswith(beginning) for line, beginning in zip(told, said, strict=True))


async def test_the_document_needs_a_key_and_tells_of_it(serve: Serve, tmp_path: Path) -> None:
    async with serve(api_keys_file=write_keys(tmp_path / "keys")) as client:
        assert (await client.get("/openapi.json")).status_code == 401
        openapi = (await client.get("/openapi.json", headers={"Authorization": f"Bearer {READER}"})).json()
    assert openapi["components"]["securitySchemes"] == {
        "ApiKey": {"type": "http", "scheme": "bearer", "description": "An API key"}
    }
    open_paths = {
        path
        for path, operations in openapi["paths"].items()
        for operation in operations.values()
        if "security" not in operation
    }
    assert open_paths == {"/livez", "/readyz"}
