"""A client that is generated from the OpenAPI document of a service calls every operation of it."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from tests.conftest import environment_of
from tests.test_variants import serving

GENERATE = ["-m", "openapi_python_client", "generate", "--meta", "none", "--overwrite"]
FUNCTIONS = ["create_item", "get_item", "update_item", "delete_item", "list_items", "livez", "readyz"]
# Its formatter is not needed.
CONFIG = json.dumps({"post_hooks": []})


@pytest.fixture(scope="module")
def service(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("client")
    settings = {"DATABASE_URL": f"sqlite+aiosqlite:///{directory / 'items.db'}", "WEB_CONCURRENCY": 1}
    upgrade = [str(project / ".venv/bin/alembic"), "upgrade", "head"]
    subprocess.run(upgrade, cwd=project, env=environment_of(**settings), check=True)
    with serving(project, "gunicorn app.main:app --bind 0.0.0.0:8000", directory / "log", **settings) as client:
        document = directory / "openapi.json"
        document.write_bytes(client.get("/openapi.json").content)
        (directory / "config.json").write_text(CONFIG)
        package = directory / "generated"
        options = ["--path", str(document), "--output-path", str(package), "--config", str(directory / "config.json")]
        subprocess.run([sys.executable, *GENERATE, *options], check=True)
        sys.path.insert(0, str(directory))
        try:
            yield client
        finally:
            sys.path.remove(str(directory))
            for name in [name for name in sys.modules if name.partition(".")[0] == "generated"]:
                del sys.modules[name]


def operations() -> dict[str, ModuleType]:
    """Return the modules of the generated operations, by the functions of the service that they call."""
    found: dict[str, ModuleType] = {}
    for tag in ("items", "health"):
        package = importlib.import_module(f"generated.api.{tag}")
        for path in Path(str(package.__file__)).parent.glob("[a-z]*.py"):
            (function,) = [function for function in FUNCTIONS if path.stem.startswith(f"{function}_")]
            found[function] = importlib.import_module(f"generated.api.{tag}.{path.stem}")
    return found


def test_a_generated_client_calls_every_operation(service: Any) -> None:
    generated = importlib.import_module("generated")
    models = importlib.import_module("generated.models")
    call = operations()
    assert set(call) == set(FUNCTIONS)
    with generated.Client(base_url=str(service.base_url)) as client:
        for name in ("livez", "readyz"):
            assert call[name].sync(client=client).status == "ok"
        create, fetch, change, delete, listing = (call[name] for name in FUNCTIONS[:5])
        item = create.sync(client=client, body=models.ItemCreate(name="x"))
        assert (item.name, item.description) == ("x", None)
        again = create.sync_detailed(client=client, body=models.ItemCreate(name="y"), idempotency_key="key")
        assert again.status_code == 201
        # What is left out stays.
        changed = change.sync(item.id, client=client, body=models.ItemUpdate(description="d"))
        assert (changed.name, changed.description) == ("x", "d")
        as_read = fetch.sync_detailed(item.id, client=client).headers["etag"]
        changed = change.sync(item.id, client=client, body=models.ItemUpdate(name="z"), if_match=as_read)
        assert (changed.name, changed.description) == ("z", "d")
        late = change.sync(item.id, client=client, body=models.ItemUpdate(name="late"), if_match=as_read)
        assert late.status == 412
        assert fetch.sync(item.id, client=client) == changed
        page = listing.sync(client=client, limit=1)
        assert [one.name for one in page.items] == ["y"]
        rest = listing.sync(client=client, cursor=page.next_cursor)
        assert [one.id for one in rest.items] == [item.id]
        assert rest.next_cursor is None
        assert delete.sync_detailed(item.id, client=client).status_code == 204
        missing = fetch.sync_detailed(UUID(int=0), client=client)
        assert (missing.status_code, missing.parsed.title) == (404, "Not Found")
        refused = create.sync(client=client, body=models.ItemCreate(name=""))
        assert refused.status == 422
