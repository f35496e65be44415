"""What the whole service logs: each line is JSON, and no line holds what a client sent."""

import json
from pathlib import Path

import pytest

from app.highload.http.request_id import FIELD
from tests.test_items_release import served_release
from tests.waiting import eventually

MARK = "what-a-client-sends"
BROKEN = (
    "app/highload/repository.py",
    "    async def delete(",
    '    async def delete(self, *_, **__):\n        raise RuntimeError("it is broken")\n\n    async def delete_well(',
)
FIELDS = {"Authorization": f"Bearer {MARK}", "Idempotency-Key": MARK, "Cookie": MARK, "Referer": MARK}


async def test_each_line_is_json_and_holds_nothing_of_a_client(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    async with served_release(tmp_path, database_url, BROKEN) as release:
        client = release.client
        made = await client.post("/items", json={"name": MARK}, headers=FIELDS)
        assert made.status_code == 201
        for body in ({"name": MARK * 100}, {"name": [MARK]}, {"name": f"{MARK}\0"}, {MARK: MARK}, MARK):
            assert (await client.post("/items", json=body, headers=FIELDS)).status_code == 422
        await client.patch(made.headers["location"], json={"name": f"{MARK}, too"}, headers=FIELDS)
        await client.get(f"/items?limit={MARK}", headers=FIELDS)
        failed = await client.delete(made.headers["location"], headers=FIELDS)
        assert failed.status_code == 500

        async def told() -> bool:
            return "it is broken" in release.text()

        await eventually(told)
    text = release.log.read_text()
    assert MARK not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {"gunicorn.error", "uvicorn.error"} <= {line["logger"] for line in lines}
    (line,) = [line for line in lines if line["level"] == "ERROR"]
    assert line["exception"].endswith("RuntimeError: it is broken")
    assert line["request_id"] == failed.headers[FIELD.decode()]
