"""Two releases of a service and the Celery worker of each: the new one has a column that the old one does not know."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from celery import Celery
from pydantic import BaseModel
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.highload import worker
from app.highload.columns import ANNOTATIONS, StoredRow
from app.highload.database import open_database
from app.highload.repository import Storage
from app.highload.resource import Message, Resource
from app.highload.writes.queue import RowQueue
from tests.highload.everything import CHILDREN, PARENTS
from tests.highload.notes import NAME, storage_of
from tests.waiting import PATIENCE

QUEUE = RowQueue(f"{NAME}.releases", "tests.highload.releases.store_rows")


class OldBase(DeclarativeBase):
    type_annotation_map = ANNOTATIONS


class NewBase(DeclarativeBase):
    type_annotation_map = ANNOTATIONS


class OldParcel(StoredRow, OldBase):
    __tablename__ = "highload_parcels"

    name: Mapped[str] = mapped_column(String(20))


class Parcel(StoredRow, NewBase):
    __tablename__ = "highload_parcels"

    name: Mapped[str] = mapped_column(String(20))
    # The old release stores rows without it.
    weight: Mapped[int] = mapped_column(default=5, server_default="5")


class OldCreate(BaseModel):
    name: str


class Create(OldCreate):
    weight: int = 5


OLD = Resource(OldParcel, create=OldCreate, change=OldCreate, read=OldCreate)
NEW = Resource(Parcel, create=Create, change=Create, read=Create)
NEWER = Resource(Parcel, create=Create, change=Create, read=Create, version=2)
RELEASES: dict[str, Resource[Any, Any, Any]] = {"old": OLD, "new": NEW, "newer": NEWER}

celery = Celery(NAME, broker=os.environ.get("BROKER_URL"))
celery.conf.update(worker.reliable(QUEUE), worker_concurrency=int(os.environ.get("WORKER_CONCURRENCY", "1")))
worker.COMES_LATER = int(os.environ.get("COMES_LATER", worker.COMES_LATER))


@asynccontextmanager
async def open_storage() -> AsyncGenerator[Storage]:
    async with open_database(os.environ["DATABASE_URL"], name=NAME, pool_size=1, timeout=PATIENCE) as database:
        yield storage_of(database, max_waiting=sys.maxsize)


process = worker.WorkerProcess(open_storage, [RELEASES[os.environ.get("RELEASE", "new")], PARENTS, CHILDREN])


@celery.task(name=QUEUE.task)
def store_rows(message: Message) -> None:
    worker.store_message(store_rows, QUEUE, process, message)
