"""The documentation of a rendered service in a browser, and the files of it that others wrote."""

import json
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest

from tests.browser import DARK, LIGHT, Browser, top_left
from tests.conftest import install
from tests.test_variants import serving
from tests.variants import COPIED, TEMPLATE, is_of_others, render
from tools import swagger_ui

PLACE = swagger_ui.PLACE.relative_to(TEMPLATE)
FILES = sorted([*swagger_ui.FILES, swagger_ui.COMPONENT])
# Swagger UI says so of every address with an underscore, which is what the framework makes of the names of functions.
OF_DEEP_LINKS = '"Deprecated: escaping deep link whitespace with `_`'
# Milliseconds of the browser's own clock, which stands still while it waits for the service.
TIME_TO_DRAW = 30_000


def test_the_page_in_a_browser(browser: Browser, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """From the address of the service, below a root path, to an operation that is opened."""
    project = install(render(tmp_path), tmp_path_factory)
    settings = {"DATABASE_URL": "sqlite+aiosqlite://", "WEB_CONCURRENCY": "1", "ROOT_PATH": "/api"}
    corners = {}
    with serving(project, "gunicorn app.main:app --bind 0.0.0.0:8000", tmp_path / "log", **settings) as client:
        operations = client.get("/openapi.json").json()["paths"]["/items"].values()
        origin = str(client.base_url).rstrip("/")
        for scheme in (DARK, LIGHT):
            picture = tmp_path / f"{scheme}.png"
            document, messages, asked = browser.show(
                f"{origin}/api/#/items/create_item_items_post",
                f"--blink-settings=preferredColorScheme={scheme}",
                f"--virtual-time-budget={TIME_TO_DRAW}",
                f"--screenshot={picture}",
                "--dump-dom",
            )
            assert [message for message in messages if OF_DEEP_LINKS not in message] == []
            assert f"{origin}/api/openapi.json" in asked
            assert [address for address in asked if not address.startswith(f"{origin}/api/")] == []
            for operation in operations:
                assert operation["summary"] in document
            assert "Idempotency-Key" in document, "the operation is opened"
            corners[scheme] = top_left(picture)
    assert max(corners[DARK]) < 64
    assert min(corners[LIGHT]) > 192


def test_the_files_of_others_are_those_of_their_release(tmp_path: Path) -> None:
    place = render(tmp_path) / PLACE
    assert sorted(path.name for path in place.iterdir()) == FILES
    component = json.loads((place / swagger_ui.COMPONENT).read_text(encoding="utf-8"))
    digests = {file["name"]: file["hashes"][0]["content"] for file in component["components"]}
    assert sorted(digests) == sorted(swagger_ui.FILES)
    for name, digest in digests.items():
        assert sha256((place / name).read_bytes()).hexdigest() == digest
    assert (component["name"], component["licenses"]) == ("swagger-ui-dist", [{"license": {"id": "Apache-2.0"}}])


def test_every_pattern_of_what_is_copied_is_used() -> None:
    assert [f"{PLACE.as_posix()}/*"] == COPIED
    assert is_of_others(f"{PLACE.as_posix()}/LICENSE")


def test_another_release_takes_its_place(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    for name in swagger_ui.FILES:
        (package / name).write_text(f"new {name}")
    (package / "package.json").write_text('{"name": "swagger-ui-dist", "version": "6.0.0", "license": "Apache-2.0"}')
    with tarfile.open(tmp_path / "new.tgz", "w:gz") as archive:
        archive.add(package, "package")
    swagger_ui.unpack(tmp_path / "new.tgz", tmp_path / "place")
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == FILES
    component = json.loads((tmp_path / "place" / swagger_ui.COMPONENT).read_text(encoding="utf-8"))
    assert component["purl"] == "pkg:npm/swagger-ui-dist@6.0.0"
    assert component["components"][0]["hashes"][0]["content"] == sha256(b"new LICENSE").hexdigest()
