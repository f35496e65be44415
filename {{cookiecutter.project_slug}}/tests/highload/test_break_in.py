"""Who has no right key gets nothing: neither on the short way nor on the long one."""

from pathlib import Path

import pytest
from starlette.types import Scope

from app.highload.http import health
from app.highload.http.access import Access
from app.highload.http.keys import read_keys
from tests.break_in import BOTH, break_in, write_keys
from tests.conftest import in_database, running
from tests.highload.notes import Nothing, insert_notes, new_note, notes_service

TEXT = "nobody may read this"
AS_BOTH = {"Authorization": f"Bearer {BOTH}"}


@pytest.mark.parametrize("way", ["short", "long"])
async def test_nobody_gets_in_without_the_right_key(
    database_url: str, tmp_path: Path, asked: list[Scope], way: str
) -> None:
    note = new_note(TEXT)
    await in_database(database_url, lambda connection: insert_notes(connection, [note]))
    keys = read_keys(write_keys(tmp_path / "keys"))
    app = notes_service(database_url=database_url, access=Access(keys=keys, open_paths=[health.LIVEZ, health.READYZ]))
    if way == "long":
        app.add_middleware(Nothing)
    async with running(app) as client:
        before = await client.get("/notes", headers=AS_BOTH)
        assert TEXT in before.text
        asked.clear()
        await client.get("/notes", headers=AS_BOTH)
        assert len(asked) == (way == "long")
        await break_in(client, "/notes", f"/notes/{note['id']}", TEXT.encode())
        assert (await client.get("/notes", headers=AS_BOTH)).json() == before.json()
