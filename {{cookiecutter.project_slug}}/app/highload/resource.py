"""A resource: a table, and the schemas with which its rows are created, changed and read."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, TypedDict, cast
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, with_config
from pydantic_core import to_json
from sqlalchemy import Column, Table
from uuid_utils.compat import uuid7

from app.highload import idempotency
from app.highload.columns import STAMPS, StoredRow, comes_back_as_given, python_type, reason_to_refuse
from app.highload.generations import Source

# What a foreign key may do to the rows that hold it.
ACTIONS = {"CASCADE", "SET NULL", "SET DEFAULT"}

# A row on its way to its table, or back: the values of its columns by their names.
type Row = dict[str, Any]


class Message(TypedDict):
    """Rows of a resource in the queue."""

    resource: str
    version: int
    rows: str


class CannotStore(Exception):
    """The schemas of a resource do not fit its table; the message says what to write instead."""


class Resource[C: BaseModel, U: BaseModel, R: BaseModel]:
    """What the engine knows of a table.

    The fields of the schemas are columns of the same names. A column that neither `create` nor `change` fills needs a
    default, or its name in `filled_elsewhere`, because SQL of your own fills it. Where there is a queue, new rows go
    through it if they are `queued`. Increase `version` when the meaning of a column changes.

    Raises CannotStore.
    """

    def __init__(
        self,
        model: type[StoredRow],
        *,
        create: type[C],
        change: type[U],
        read: type[R],
        queued: bool = True,
        version: int = 1,
        filled_elsewhere: Collection[str] = (),
    ) -> None:
        self.table = cast(Table, cast(Any, model).__table__)
        self.name = self.table.name
        self.queued = queued
        self.version = version
        self.read = read
        self.created = tuple(create.model_fields)
        self.shown = tuple(read.model_fields)
        self._decided_by = tuple(sorted(cascading_to(self.table)))
        self._check_schemas(create, change, read)
        self._defaults = dict(defaults_of(self.table.columns))
        self._check_columns({*change.model_fields, *filled_elsewhere})
        self._defaults |= {
            column.name: lambda _: None
            for column in self.table.columns
            if column.name not in (*STAMPS, *self.created, *self._defaults) and not filled_by_database(column)
        }
        # The columns of a new row that the service fills; the database fills the others.
        self.filled = {*STAMPS, *self.created, *self._defaults}
        self._check_what_is_shown()
        # Whether a client sees of a new row what is known only when it is stored.
        self.shows_what_the_database_makes = any(
            name not in self.filled or not comes_back_as_given(self.table.c[name]) for name in self.shown
        )
        self._list = TypeAdapter(list[read])  # type: ignore[valid-type]
        self._rows = messages_of(self.table)

    @property
    def rows(self) -> Source:
        """The rows of the table, for a shared route that reads any of them: `@shared(reads=[NOTES.rows])`."""
        return Source(self.name, also=self._decided_by)

    def row(self, parameter: str) -> Source:
        """Return the row whose id is a path parameter, for a shared route that reads no other row."""
        return Source(self.name, parameter, also=self._decided_by)

    def new_row(self, body: C, idempotency_key: str | None, *, service: str) -> Row:
        """Return the row that a request creates; all requests with a key make the same."""
        row = {name: default(None) for name, default in self._defaults.items()}
        for name in self.created:
            row[name] = getattr(body, name)
        row["created_at"] = datetime.now(UTC)
        if idempotency_key is None:
            row["id"], row["fingerprint"] = uuid7(), None
            return row
        row["id"] = idempotency.id_of(idempotency_key, f"{service}/{self.name}")
        row["fingerprint"] = idempotency.fingerprint_of(body)
        return row

    def show(self, row: object) -> R:
        """Return what a client sees of a row."""
        return self.read.model_validate(row, from_attributes=True, by_alias=False, by_name=True)

    def show_all(self, rows: Sequence[object]) -> list[R]:
        """Return what a client sees of some rows."""
        return self._list.validate_python(rows, from_attributes=True, by_alias=False, by_name=True)

    def encode(self, shown: list[R]) -> bytes:
        """Return what a client sees of some rows, in JSON."""
        return self._list.dump_json(shown, by_alias=True)

    def message(self, rows: Sequence[Row]) -> Message:
        """Return rows as they go through the queue; as a text, because JSON has fewer types than columns."""
        text = to_json(list(rows), bytes_mode="base64", inf_nan_mode="strings").decode()
        return {"resource": self.name, "version": self.version, "rows": text}

    def rows_of(self, message: Message) -> list[Row]:
        """Return the rows of a message; columns that it does not have get their defaults.

        Raises ValueError when this release cannot read it, because a newer one wrote it.
        """
        if message["version"] > self.version:
            raise ValueError(f"version {message['version']} of {self.name} is newer than {self.version}")
        rows: list[Row] = self._rows.validate_json(message["rows"])
        for row in rows:
            if unknown := row.keys() - self.table.columns.keys():
                raise ValueError(f"{self.name} has no column {min(unknown)}")
            for name in self._defaults.keys() - row.keys():
                row[name] = self._defaults[name](None)
        return rows

    def _check_schemas(self, *schemas: type[BaseModel]) -> None:
        for schema in schemas:
            for name in schema.model_fields:
                if name not in self.table.columns:
                    self._refuse(
                        f"{schema.__name__}.{name} is no column of {self.name}",
                        "give both the same name, make it a computed_field, or take it out",
                    )
        for schema in schemas[:2]:
            for name in STAMPS:
                if name in schema.model_fields:
                    self._refuse(f"{schema.__name__}.{name} is made by the service", "take it out")

    def _check_columns(self, filled_later: Collection[str]) -> None:
        for column in self.table.columns:
            if reason := reason_to_refuse(column):
                self._refuse(f"the type of {self.name}.{column.name} is not supported", reason)
            if column.name in (*STAMPS, *self.created, *self._defaults) or filled_by_database(column):
                continue
            if column.name not in filled_later or not column.nullable:
                self._refuse(
                    f"nobody fills {self.name}.{column.name} when a row is created",
                    "add it to the schema of that, or give it a default; a column that may be null can also be in the "
                    "schema of changes, or in filled_elsewhere",
                )
        if [column.name for column in self.table.primary_key] != ["id"]:
            self._refuse(f"the primary key of {self.name} is not its id alone", "use a UniqueConstraint for other keys")

    def _check_what_is_shown(self) -> None:
        for name in self.shown:
            if self.queued and name not in self.filled:
                self._refuse(
                    f"{self.name}.{name} is shown before the database has filled it",
                    "give it a default in the model, or say queued=False for the resource",
                )

    def _refuse(self, what: str, instead: str) -> NoReturn:
        raise CannotStore(f"{what}: {instead}.")


def defaults_of(columns: Iterable[Column[Any]]) -> Iterable[tuple[str, Any]]:
    """Yield the names of columns whose default is made in Python, with what makes it of a context."""
    for column in columns:
        default = column.default
        if default is not None and default.is_callable:
            yield column.name, cast(Any, default).arg
        if default is not None and default.is_scalar:
            value = cast(Any, default).arg
            yield column.name, lambda _, value=value: value


def filled_by_database(column: Column[Any]) -> bool:
    """Whether the database makes a value where a new row brings none."""
    by_expression = column.default is not None and column.default.is_clause_element
    return by_expression or column.server_default is not None


def cascading_to(table: Table) -> set[str]:
    """Return the names of the tables whose changes may change or delete rows of this one."""
    found: set[Table] = set()
    waiting = [table]
    while waiting:
        for key in waiting.pop().foreign_keys:
            acts = {(key.ondelete or "").upper(), (key.onupdate or "").upper()} & ACTIONS
            if acts and key.column.table not in found:
                found.add(key.column.table)
                waiting.append(key.column.table)
    return {parent.name for parent in found}


def messages_of(table: Table) -> TypeAdapter[list[Row]]:
    """Return what reads rows of a table from releases that know fewer or more columns."""
    types: dict[str, Any] = {
        column.name: (python_type(column.type) | None) if column.nullable else python_type(column.type)
        for column in table.columns
    }
    row: Any = with_config({"extra": "allow"})(TypedDict(table.name, types, total=False))  # type: ignore[operator]
    return TypeAdapter(list[row])


def id_in(row: Row) -> UUID:
    """Return the primary key of a row."""
    return cast(UUID, row["id"])
