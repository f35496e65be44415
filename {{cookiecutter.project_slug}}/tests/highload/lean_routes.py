"""Routes that are served the lean way, and answer what a query asks of them."""

from typing import Any

from fastapi import APIRouter, BackgroundTasks, Request, Response
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, StreamingResponse

from app.highload.lean import LeanRoute
from app.highload.reads.shared import shared

router = APIRouter(prefix="/lean", route_class=LeanRoute)
# What has run after an answer.
ENDED: list[str] = []


class Body(BaseModel):
    text: str


def response_of(kind: str, text: str) -> Response:
    """Return the response of a kind."""
    location = {"Location": f"/lean/{len(text)}"}
    responses: dict[str, Any] = {
        "plain": lambda: JSONResponse(text, 201, location),
        "tagged": lambda: JSONResponse(text, 200, {"ETag": '"x"', **location}),
        "cacheable": lambda: JSONResponse(text, 200, {"Cache-Control": "max-age=5"}),
        "page": lambda: Response(f"<p>{len(text)}</p>", media_type="text/html"),
        "policy": lambda: Response(text, headers={"Content-Security-Policy": "sandbox", "X-Empty": ""}),
        "upper": lambda: with_field(Response(text), b"X-UPPER", b"A"),
        "error": lambda: JSONResponse({"text": text}, 418),
        "nothing": lambda: Response(status_code=204),
        "not modified": lambda: Response(status_code=304, headers={"ETag": '"x"'}),
        "named": lambda: Response(text, headers={"X-Request-ID": "mine"}),
        "background": lambda: Response(text, background=BackgroundTask(ENDED.append, text)),
        "stream": lambda: StreamingResponse(iter([text])),
        "no length": lambda: without_length(Response(text)),
        "last": lambda: Response(text, headers={"Connection": "close"}),
        "two lines": lambda: Response(text, headers={"X-Lines": "a\nb"}),
        "no name": lambda: Response(text, headers={"a b": "c"}),
    }
    return responses[kind]()  # type: ignore[no-any-return]


def with_field(response: Response, name: bytes, value: bytes) -> Response:
    response.raw_headers.append((name, value))
    return response


def without_length(response: Response) -> Response:
    del response.headers["Content-Length"]
    return response


@router.post("")
async def post(body: Body, kind: str = "plain") -> Response:
    return response_of(kind, body.text)


@router.get("/{number}")
async def get(number: int, kind: str = "tagged") -> Response:
    return response_of(kind, str(number))


@router.put("/{number}")
async def put(request: Request, number: int, body: Body) -> Response:
    return JSONResponse([number, body.text, request.method, dict(request.path_params), (await request.body()).decode()])


@router.patch("/{number}")
async def patch(request: Request, number: int) -> Response:
    """Answer what a client is taken for."""
    client = request.client
    host = client.host if client and number else ""
    return JSONResponse([host, request.url.scheme, request.scope["endpoint"].__name__, bool(request.app)])


@router.delete("/{number}", status_code=204)
async def delete(number: int) -> None:
    if number == 1:
        raise HTTPException(409, "It is in use.")
    if number > 1:
        raise RuntimeError("broken")


@router.get("/{number}/shared")
@shared
async def get_shared(number: int) -> Response:
    return JSONResponse(number)


@router.get("/{number}/tasks")
async def get_with_tasks(number: int, tasks: BackgroundTasks) -> Response:
    """Answer on FastAPI's way."""
    tasks.add_task(ENDED.append, "task")
    return Response(str(number))
