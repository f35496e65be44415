"""/items: list, create, fetch, change, delete."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator
from starlette.exceptions import HTTPException
from uuid_utils.compat import uuid7

from app import crud
from app.config import NAME
from app.crud import ItemRow
from app.highload.http.problems import problem_responses
from app.highload.pagination import decode_cursor
from app.highload.reads.dependencies import Opened
from app.highload.reads.rows import RowReader
from app.highload.reads.shared import shared
from app.highload.writes import idempotency
from app.highload.writes.group_commit import DirectWriter, Writer
from app.schemas import ItemCreate, ItemPage, ItemRead, ItemUpdate, NewItem

KEY_NAMESPACE = idempotency.key_namespace(NAME)

LOCATION = {"Location": {"description": "The address of the item", "schema": {"type": "string"}}}
NOT_FOUND = problem_responses(_404="There is no item with this id")
BAD_BODY = problem_responses(_400="The body is not JSON in UTF-8", _413="The body is too large")
CREATE_RESPONSES: dict[int | str, dict[str, Any]] = {
    201: {"model": ItemRead, "description": "Stored", "headers": LOCATION},
    # {% if cookiecutter.queued_writes %}
    202: {"model": ItemRead, "description": "Accepted; a worker stores it", "headers": LOCATION},
    # {% endif %}
}

router = APIRouter(
    prefix="/items",
    tags=["items"],
    responses=problem_responses(
        _422="The request is not valid",
        _503="The service cannot do this now; `Retry-After` says when",
    ),
)


def check_cursor(cursor: str) -> str:
    """Refuse a cursor that no page gave."""
    decode_cursor(cursor)
    return cursor


Cursor = Annotated[str, AfterValidator(check_cursor)]


Reader = Annotated[RowReader[ItemRow], Depends(Opened("reader"))]


def writer_of(request: Request) -> Writer[NewItem]:
    """Return the writer of new items that the lifespan opened."""
    return cast(Writer[NewItem], request.state.writer)


def direct_writer_of(request: Request) -> DirectWriter[NewItem]:
    """Return the writer of changes that the lifespan opened."""
    return cast(DirectWriter[NewItem], request.state.direct_writer)


@router.get("")
@shared
async def list_items(
    reader: Reader,
    limit: Annotated[int, Query(ge=1, le=1000, description="Items on a page")] = 100,
    cursor: Annotated[Cursor | None, Query(description="`next_cursor` of the page before")] = None,
) -> ItemPage:
    """List items, newest first."""
    after = None if cursor is None else decode_cursor(cursor)
    rows, next_cursor = await reader.page(limit=limit, after=after)
    return ItemPage.model_validate({"items": rows, "next_cursor": next_cursor})


@router.post(
    "",
    status_code=201,
    response_model=ItemRead,
    responses=CREATE_RESPONSES | BAD_BODY,
    openapi_extra={"parameters": [idempotency.DOCUMENTATION]},
)
async def create_item(request: Request, body: ItemCreate) -> Response:
    """Create an item."""
    key = idempotency.key_of(request)
    receipt = await writer_of(request).create(new_item(body, key))
    item = receipt.row
    return Response(
        item_read(item).model_dump_json(),
        201 if receipt.stored else 202,
        {"Location": f"{request.scope.get('root_path', '')}/items/{item.id}"},
        media_type="application/json",
    )


@router.get("/{item_id}", response_model=ItemRead, responses=NOT_FOUND)
@shared
async def get_item(reader: Reader, item_id: UUID) -> Response:
    """Fetch an item."""
    item = found(await reader.one(item_id))
    return Response(item.model_dump_json(), media_type="application/json")


@router.patch("/{item_id}", responses=NOT_FOUND | BAD_BODY)
async def update_item(request: Request, item_id: UUID, body: ItemUpdate) -> ItemRead:
    """Change an item; what is left out stays."""
    update = partial(crud.update_item, item_id=item_id, changes=body.changes())
    return found(await direct_writer_of(request).change(update))


@router.delete("/{item_id}", status_code=204, responses=NOT_FOUND)
async def delete_item(request: Request, item_id: UUID) -> None:
    """Delete an item."""
    if not await direct_writer_of(request).change(partial(crud.delete_item, item_id=item_id)):
        raise no_such_item()


def new_item(body: ItemCreate, idempotency_key: str | None) -> NewItem:
    """Give a new item its id, its creation time and, with an idempotency key, its fingerprint."""
    now = datetime.now(UTC)
    if idempotency_key is None:
        return NewItem(uuid7(), body.name, body.description, now)
    item_id, fingerprint = idempotency.id_of(idempotency_key, KEY_NAMESPACE), idempotency.fingerprint_of(body)
    return NewItem(item_id, body.name, body.description, now, fingerprint)


def item_read(item: NewItem | ItemRow) -> ItemRead:
    """Return what a client sees of an item."""
    return ItemRead.model_construct(
        id=item.id, name=item.name, description=item.description, created_at=item.created_at
    )


def found(row: ItemRow | None) -> ItemRead:
    """Return what a client sees of a row, if there is one."""
    if row is None:
        raise no_such_item()
    return item_read(row)


def no_such_item() -> HTTPException:
    """Return the error for an id that no item has."""
    return HTTPException(404, "There is no item with this id.")
