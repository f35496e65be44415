"""/items: list, create, fetch, change, delete."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from starlette.exceptions import HTTPException

from app.crud import ITEMS
from app.highload import etags, idempotency
from app.highload.etags import OnlyIf, represent
from app.highload.http.problems import problem_responses
from app.highload.json_pages import represent_page
from app.highload.lean import LeanRoute
from app.highload.pagination import Cursor, Limit
from app.highload.reads.dependencies import Opened
from app.highload.reads.shared import shared
from app.highload.repository import Repository
from app.schemas import ItemCreate, ItemPage, ItemRead, ItemUpdate

LOCATION = {"Location": {"description": "The address of the item", "schema": {"type": "string"}}}
NOT_FOUND = problem_responses(_404="There is no item with this id")
BAD_BODY = problem_responses(
    _400="The body is not JSON in UTF-8",
    _413="The body is too large",
    _415="The Content-Type is not that of JSON",
)
CREATE_RESPONSES: dict[int | str, dict[str, Any]] = {
    201: {"model": ItemRead, "description": "Stored", "headers": LOCATION | etags.DOCUMENTATION},
    # {% if cookiecutter.queued_writes %}
    202: {"model": ItemRead, "description": "Accepted; a worker stores it", "headers": LOCATION},
    # {% endif %}
}

router = APIRouter(
    prefix="/items",
    tags=["items"],
    route_class=LeanRoute,
    responses=problem_responses(
        _422="The request is not valid",
        _503="The service cannot do this now; `Retry-After` says when",
    ),
)

Items = Annotated[
    Repository[ItemCreate, ItemUpdate, ItemRead],
    Depends(Opened("items")),
]


@router.get("", response_model=ItemPage)
@shared(reads=[ITEMS.rows])
async def list_items(
    items: Items,
    limit: Limit = 100,
    cursor: Cursor | None = None,
) -> Response:
    """List items, newest first."""
    page, next_cursor = await items.page_as_json(limit=limit, cursor=cursor)
    return represent_page(ItemPage, items=page, next_cursor=next_cursor)


@router.post(
    "",
    status_code=201,
    response_model=ItemRead,
    responses=CREATE_RESPONSES | BAD_BODY,
    openapi_extra={"parameters": [idempotency.DOCUMENTATION]},
)
async def create_item(
    request: Request,
    items: Items,
    body: ItemCreate,
) -> Response:
    """Create an item."""
    item, stored = await items.create(body, idempotency.key_of(request))
    root_path = request.scope.get("root_path", "")
    return represent(
        item,
        201 if stored else 202,
        {"Location": f"{root_path}/items/{item.id}"},
    )


@router.get("/{item_id}", response_model=ItemRead, responses=NOT_FOUND)
@shared(reads=[ITEMS.row("item_id")])
async def get_item(items: Items, item_id: UUID) -> Response:
    """Fetch an item."""
    return represent(found(await items.one(item_id)))


@router.patch("/{item_id}", response_model=ItemRead, responses=NOT_FOUND | BAD_BODY)
async def update_item(
    items: Items,
    item_id: UUID,
    only_if: OnlyIf,
    body: ItemUpdate,
) -> Response:
    """Change an item; what is left out stays."""
    return represent(found(await items.change(item_id, body, only_if=only_if)))


@router.delete("/{item_id}", status_code=204, responses=NOT_FOUND)
async def delete_item(
    items: Items,
    item_id: UUID,
    only_if: OnlyIf,
) -> None:
    """Delete an item."""
    if not await items.delete(item_id, only_if=only_if):
        raise HTTPException(404, "There is no item with this id.")


def found(item: ItemRead | None) -> ItemRead:
    """Return an item, if there is one."""
    if item is None:
        raise HTTPException(404, "There is no item with this id.")
    return item
