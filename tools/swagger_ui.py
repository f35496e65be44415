"""Put a release of Swagger UI, as npm packs it, into the template: its files, its licence, and what an SBOM says of it.

It takes the path of an archive that `npm pack swagger-ui-dist@VERSION` has fetched and checked.
"""

import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent.parent / "{{cookiecutter.project_slug}}/app/highload/http/static/swagger-ui"
FILES = ("LICENSE", "NOTICE", "swagger-ui-bundle.js", "swagger-ui-bundle.js.LICENSE.txt", "swagger-ui.css")
COMPONENT = "component.cdx.json"


def unpack(archive: Path, place: Path) -> None:
    """Write the files of an archive and their description to a directory.

    Raises KeyError when the archive lacks one of them.
    """
    place.mkdir(exist_ok=True)
    with tarfile.open(archive) as packed:
        contents = {name: content_of(packed, name) for name in (*FILES, "package.json")}
    described = describe(json.loads(contents.pop("package.json")), archive.read_bytes(), contents)
    contents[COMPONENT] = f"{json.dumps(described, indent=2)}\n".encode()
    for name, content in contents.items():
        (place / name).write_bytes(content)


def content_of(packed: tarfile.TarFile, name: str) -> bytes:
    """Return what a file of the archive holds."""
    file = packed.extractfile(f"package/{name}")
    if file is None:
        raise KeyError(name)
    return file.read()


def describe(package: dict[str, Any], archive: bytes, contents: dict[str, bytes]) -> dict[str, Any]:
    """Return the release as a component of a CycloneDX document, with the digests of its files."""
    name, version = package["name"], package["version"]
    purl = f"pkg:npm/{name}@{version}"
    return {
        "bom-ref": f"{name}@{version}",
        "type": "library",
        "name": name,
        "version": version,
        "licenses": [{"license": {"id": package["license"]}}],
        "purl": purl,
        "externalReferences": [
            {
                "type": "distribution",
                # Which registry of npm it came from says nothing: the digest does.
                "url": purl,
                "hashes": [{"alg": "SHA-512", "content": hashlib.sha512(archive).hexdigest()}],
            }
        ],
        "components": [
            {
                "type": "file",
                "name": file,
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}],
            }
            for file, content in contents.items()
        ],
    }


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), PLACE)
