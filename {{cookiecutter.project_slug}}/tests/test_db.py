"""What the engine keeps to itself."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db import create_engine


async def test_an_error_does_not_repeat_what_a_client_sent(database_url: str) -> None:
    engine = create_engine(Settings(_env_file=None, database_url=database_url), pool_size=1)
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as raised:
            await connection.execute(text("SELECT * FROM nothing WHERE name = :name"), {"name": "secret"})
    await engine.dispose()
    assert "nothing" in str(raised.value)
    assert "secret" not in str(raised.value)
