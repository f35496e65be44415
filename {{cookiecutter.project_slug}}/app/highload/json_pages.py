"""Pages as PostgreSQL writes them in JSON, so that none of their rows becomes an object of Python.

Only where the bytes are those that pydantic would write: where a schema does nothing but copy columns of plain types.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import to_json
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Dialect,
    Integer,
    Row,
    Select,
    SmallInteger,
    String,
    Text,
    Uuid,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from app.highload.pagination import Position
from app.highload.resource import Resource

type Conditions = Sequence[ColumnElement[bool]]
type Schema = Mapping[str, Any]

# By pydantic's names: the types whose values PostgreSQL and pydantic write alike, and PostgreSQL's names for them.
ALIKE: dict[str, tuple[Sequence[type], Sequence[str]]] = {
    "str": ((String, Text), ("VARCHAR", "TEXT")),
    "int": ((SmallInteger, Integer, BigInteger), ("SMALLINT", "INTEGER", "BIGINT")),
    "bool": ((Boolean,), ("BOOLEAN",)),
    "uuid": ((Uuid,), ("UUID",)),
    "date": ((Date,), ("DATE",)),
    "datetime": ((DateTime,), ("TIMESTAMP WITH TIME ZONE",)),
}
# What a core schema of pydantic may say where it copies a value. Whatever else it says checks, changes or hides some.
MODEL = {"type", "cls", "config", "custom_init", "metadata", "ref", "root_model", "schema"}
CONFIG = {"title", "frozen", "from_attributes", "extra_fields_behavior", "validate_by_alias", "validate_by_name"}
FIELDS = {"type", "fields", "computed_fields", "model_name"}
FIELD = {"type", "schema", "metadata", "validation_alias", "serialization_alias"}
# A default is for a value that is not there; that of a column always is.
WRAPPERS = {"nullable": {"type", "schema"}, "default": {"type", "schema", "default"}}
VALUE = {"type", "microseconds_precision"}

POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
# ISO 8601 as pydantic writes it: with six digits of a second or none.
MOMENT = """'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"""
MOMENT_OF_A_SECOND = MOMENT.replace(".US", "")


class Encoded(bytes):
    """A text of JSON in UTF-8."""


class JSONPage(NamedTuple):
    """The rows of a page, and `last`, the position of that which is the last one of a full page.

    `found` tells whether a row stands where the page begins.
    """

    rows: Sequence[str]
    last: Position
    found: bool


class JSONPages:
    """Reads the pages of a resource; the statements without conditions are made once.

    `possible` tells whether that can be done for the resource.
    """

    def __init__(self, resource: Resource[Any, Any, Any]) -> None:
        self._table = resource.table
        self._names = copied_columns(resource)
        self.possible = self._names is not None
        self._made = {begins_after: self._query(begins_after, ()) for begins_after in (False, True) if self.possible}

    async def read(
        self, connection: AsyncConnection, limit: int, after: Position | None, conditions: Conditions
    ) -> JSONPage:
        """Return a page under some conditions, newest first: `limit` rows, and one more where another page follows."""
        begins_after = after is not None
        query = self._query(begins_after, conditions) if conditions else self._made[begins_after]
        place = after._asdict() if after else {}
        row: Row[Any] = (await connection.execute(query, {"limit": limit, **place})).one()
        return JSONPage(row.rows or (), Position(row.created_at, row.id), row.found)

    def _query(self, begins_after: bool, conditions: Conditions) -> Select[Any]:
        """Return the statement whose only row is a page."""
        table, names = self._table, self._names or {}
        columns = dict.fromkeys([*names, "created_at", "id"])
        place = tuple_(table.c.created_at, table.c.id)
        start = tuple_(*(bindparam(name, type_=table.c[name].type) for name in ("created_at", "id")))
        limit = bindparam("limit", type_=Integer)
        query = select(*(table.c[name] for name in columns)).where(
            *conditions, *([place < start] if begins_after else [])
        )
        page = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit + 1).subquery("page")
        shown = (
            select(*(written(page.c[name]).label(key) for name, key in names.items())).correlate(page).lateral("shown")
        )
        text = cast(func.row_to_json(shown.table_valued()), Text).label("text")
        rows = select(text, page.c.created_at, page.c.id).join_from(page, shown, true()).subquery("rows")
        order = (rows.c.created_at.desc(), rows.c.id.desc())
        every = select(
            *(func.array_agg(column).aggregate_order_by(*order).label(column.name) for column in rows.c)
        ).subquery("every")
        found = exists().where(place == start, *conditions) if begins_after else true()
        return select(
            every.c.text.label("rows"),
            every.c.created_at[limit].label("created_at"),
            every.c.id[limit].label("id"),
            found.label("found"),
        )


def copied_columns(resource: Resource[Any, Any, Any]) -> dict[str, str] | None:
    """Return the keys of what a client sees by the names of the columns, or None where those are not just copied."""
    schema: Schema = resource.read.__pydantic_core_schema__
    if not copies_fields(schema):
        return None
    fields: Mapping[str, Schema] = schema["schema"]["fields"]
    if not all(copies(field, resource.table.c[name]) for name, field in fields.items()):
        return None
    return {name: field.get("serialization_alias", name) for name, field in fields.items()}


def copies_fields(schema: Schema) -> bool:
    """Whether a schema of pydantic shows its fields, each by itself, and nothing else."""
    if schema["type"] != "model" or not schema.keys() <= MODEL or schema["custom_init"] or schema["root_model"]:
        return False
    fields: Schema = schema["schema"]
    return (
        schema["config"].keys() <= CONFIG
        and fields["type"] == "model-fields"
        and fields.keys() <= FIELDS
        and not fields["computed_fields"]
    )


def copies(field: Schema, column: Column[Any]) -> bool:
    """Whether a field is what PostgreSQL writes of a column."""
    if not field.keys() <= FIELD:
        return False
    value: Schema = field["schema"]
    while value["type"] in WRAPPERS:
        if not value.keys() <= WRAPPERS[value["type"]]:
            return False
        value = value["schema"]
    types, names = ALIKE.get(value["type"], ((), ()))
    stored_as = column.type.compile(dialect=POSTGRESQL).partition("(")[0]
    return value.keys() <= VALUE and type(column.type) in types and stored_as in names


def written(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return what `row_to_json` writes as pydantic writes a column."""
    if not isinstance(column.type, DateTime):
        return column
    whole = func.date_trunc(literal_column("'second'"), column) == column
    form = case((whole, literal_column(MOMENT_OF_A_SECOND)), else_=literal_column(MOMENT))
    return func.to_char(func.timezone(literal_column("'UTC'"), column), form)


def represent_page(page: type[BaseModel], **fields: Any) -> Response:
    """Return the answer that shows a page, of the values of its fields; those that are encoded stay as they are.

    Raises TypeError for other fields than those of the schema, and where that does more as a whole than to show them.
    """
    if not copies_fields(page.__pydantic_core_schema__) or fields.keys() != page.model_fields.keys():
        raise TypeError(f"give each field of {page.__name__} by its name, and let it have no validator or serializer")
    parts = []
    for name, field in page.model_fields.items():
        value = fields[name]
        if isinstance(value, Encoded):
            parts.append(to_json(field.serialization_alias or name) + b":" + value)
            continue
        alone = page.model_construct(_fields_set=None, **{name: value})
        parts.append(alone.model_dump_json(by_alias=True, include={name}).encode()[1:-1])
    return Response(b"{" + b",".join(parts) + b"}", media_type="application/json")
