"""The page that shows the OpenAPI document, and the address of the service, which leads to both.

The page is Swagger UI, and everything that it loads comes from the service, so it works without internet. FastAPI's own
pages load scripts from other hosts: leave them out with `docs_url=None` and `redoc_url=None`.

An application with `openapi_url=None` has no document, and answers 404 here.
"""

import json
import re
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b
from html import escape
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import swagger_ui_default_parameters
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

DOCS = "/docs"
STATIC = "/docs/static"
FILES = Path(__file__).with_name("static")

# Swagger UI's style sheet holds its pictures as data.
POLICY = (
    "default-src 'none'; base-uri 'none'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'; "
    "img-src 'self' data:; script-src 'self'; style-src 'self'"
)
A_YEAR = "max-age=31536000, immutable"
ASK_EACH_TIME = "no-cache"

# RFC 9110, section 12.4.2.
WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" type="image/svg+xml" href="{static}/docs.svg">
<link rel="stylesheet" href="{static}/swagger-ui/swagger-ui.css">
<link rel="stylesheet" href="{static}/docs.css">
</head>
<body>
<div id="swagger-ui" data-options="{options}"></div>
<script src="{static}/swagger-ui/swagger-ui-bundle.js"></script>
<script src="{static}/docs.js"></script>
</body>
</html>
"""

router = APIRouter(include_in_schema=False)
files = StaticFiles(directory=FILES, check_dir=False)


@router.get("/")
async def lead(request: Request) -> Response:
    """Lead a browser to the page, and tell a program where the document is.

    303 sends a client on to what describes the service (RFC 9110, section 15.4.4); the links are those of RFC 8631.
    """
    document, page = document_of(request), root_path_of(request) + DOCS
    links = [
        f'<{document}>; rel="service-desc"; type="application/json"',
        f'<{page}>; rel="service-doc"; type="text/html"',
    ]
    headers = {"Link": ", ".join(links), "Vary": "Accept"}
    accept = request.headers.getlist("accept")
    if weight_of("text/html", accept) > weight_of("application/json", accept):
        return RedirectResponse(page, 303, headers)
    return JSONResponse({"openapi": document, "docs": page}, headers=headers)


@router.get(DOCS)
async def show(request: Request) -> Response:
    """Show the OpenAPI document, with FastAPI's option `swagger_ui_parameters`."""
    app: FastAPI = request.app
    options = {**swagger_ui_default_parameters, "url": document_of(request), **(app.swagger_ui_parameters or {})}
    page = PAGE.format(
        title=escape(app.title),
        static=f"{escape(root_path_of(request))}{STATIC}/{await run_in_threadpool(fingerprint)}",
        options=escape(json.dumps(options)),
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "Cache-Control": ASK_EACH_TIME})


@router.get(STATIC + "/{version}/{path:path}")
async def send(request: Request, version: str, path: str) -> Response:
    """Send a file of the page.

    While releases change, a page may ask another one for its files; only those of its own are kept.
    """
    document_of(request)
    response = await files.get_response(path, request.scope)
    is_ours = version == await run_in_threadpool(fingerprint)
    response.headers["Cache-Control"] = A_YEAR if is_ours else ASK_EACH_TIME
    return response


def root_path_of(request: Request) -> str:
    """Return the path below which a client sees the service."""
    path: str = request.scope.get("root_path", "")
    return path.rstrip("/")


def document_of(request: Request) -> str:
    """Return where the OpenAPI document is.

    Raises HTTPException where the application has none.
    """
    app: FastAPI = request.app
    if not app.openapi_url:
        raise HTTPException(404)
    return root_path_of(request) + app.openapi_url


@cache
def fingerprint() -> str:
    """Return a digest of the files of the page, as a part of their addresses."""
    digest = blake2b(digest_size=8)
    for file in sorted(path for path in FILES.rglob("*") if path.is_file()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def weight_of(media_type: str, accept: Sequence[str]) -> float:
    """Return how much a client wants a type, by the most specific range of its Accept fields that holds it.

    A range whose weight cannot be read does not count (RFC 9110, section 12.5.1).
    """
    weights = {"*/*": 1.0} if not accept else {}
    for part in ",".join(accept).split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        written = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        if WEIGHT.fullmatch(written):
            weights[name] = float(written)
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((weights[name] for name in ranges if name in weights), 0.0)
