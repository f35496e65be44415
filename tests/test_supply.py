"""What the service is made of: a list of its packages, and what is known against them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, clean_environment, install, make
from tests.variants import render

pytestmark = pytest.mark.slow

UNKNOWN = "Nothing is known, because PyPI has not told of every package: "
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
sys.exit(error and str(error))
"""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(render(tmp_path_factory.mktemp("supply")), tmp_path_factory)


def test_the_list_of_packages_is_valid_and_names_each_with_its_hashes(full: Path) -> None:
    make(full, "sbom")
    text = (full / "sbom.cdx.json").read_text(encoding="utf-8")
    tool: list[str | Path] = [full / ".venv/bin/uv", "tool", "run", "--quiet", "--python", full / ".venv/bin/python"]
    command = [*tool, "--from", "cyclonedx-bom>=7.5,<8", "python", "-c", VALIDATE]
    done = subprocess.run(command, input=text, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(text)
    assert document["metadata"]["component"]["name"] == "highload-service"
    pinned = re.findall(r"^([\w.-]+)==(\S+)", (full / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    listed = [(component["name"], component["version"]) for component in document["components"]]
    (copied,) = full.rglob("component.cdx.json")
    swagger_ui = json.loads(copied.read_text(encoding="utf-8"))
    assert sorted(listed) == sorted([*pinned, ("swagger-ui-dist", swagger_ui["version"])])
    for component in document["components"]:
        assert any(reference.get("hashes") for reference in component["externalReferences"]), component["name"]


def test_an_audit_is_clean_only_when_everything_was_asked(full: Path) -> None:
    done = make(full, "audit", check=False)
    # Which it is, is told by a service that others run.
    sentence = (
        "No known vulnerabilities found" if done.returncode == 0 else f"({UNKNOWN}|Found \\d+ known vulnerabilit)"
    )
    assert re.search(sentence, done.stdout), done.stdout
    # The tool is there now, and its service is not.
    nowhere = "http://127.0.0.1:9"
    proxies = {"HTTPS_PROXY": nowhere, "https_proxy": nowhere, "ALL_PROXY": nowhere}
    done = make(full, "audit", check=False, timeout=PATIENCE, UV_OFFLINE="1", **proxies)
    assert done.returncode != 0
    sentence, *rest = done.stdout.splitlines()
    assert sentence.startswith(UNKNOWN)
    assert "127.0.0.1" in sentence
    # And what make says.
    assert len(rest) <= 1
