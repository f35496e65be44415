"""What the README of the engine shows works as it stands there."""

import re
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

import app.highload
from app.highload.service import Service

README = Path(app.highload.__file__).with_name("README.md")


def test_the_guard_of_the_readme_keeps_tenants_apart() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)  # noqa: S102 - it is our own
    service = Service(limit_concurrency=10, max_body_bytes=10, max_waiting=10)
    service.include_flat(names["router"])
    with TestClient(service) as client:
        for key, tenant in (("key-of-ada", "north"), ("key-of-bob", "south")):
            answer = client.get("/notes", headers={"X-API-Key": key})
            assert answer.json() == [f"a note of {tenant}"]
            assert answer.headers["x-cache"] == "miss"
        assert client.get("/notes", headers={"X-API-Key": "no key"}).status_code == 401
        assert client.get("/notes").status_code == 401
    assert "APIKeyHeader" in service.openapi()["components"]["securitySchemes"]
