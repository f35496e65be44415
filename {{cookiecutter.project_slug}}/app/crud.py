"""The resources of the service: what the engine knows of each table. SQL of your own belongs here, too."""

from typing import Any

from app.highload.resource import Resource
from app.models import Item
from app.schemas import ItemCreate, ItemRead, ItemUpdate

ITEMS = Resource(
    Item,
    create=ItemCreate,
    change=ItemUpdate,
    read=ItemRead,
)

# The workers store the rows of these.
RESOURCES: list[Resource[Any, Any, Any]] = [ITEMS]
