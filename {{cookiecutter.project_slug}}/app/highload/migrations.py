"""Migrations that run on PostgreSQL and on SQLite, and need nothing of the application."""

import logging
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _repr_type, renderers
from alembic.command import upgrade
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, Connection, Enum, make_url
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import False_, True_
from sqlalchemy.sql.functions import now
from sqlalchemy.types import TypeDecorator

from app.highload.sqlite import SQLiteUTC

logger = logging.getLogger("alembic")

POSTGRESQL = make_url("postgresql+asyncpg://").get_dialect()()
SQLITE = make_url("sqlite+aiosqlite://").get_dialect()()
# Each database has another text for these, so they become text when the migration runs.
DEFAULTS: dict[type, str] = {True_: "sa.true()", False_: "sa.false()", now: "sa.func.now()"}


@contextmanager
def one_transaction(connection: Connection) -> Generator[None]:
    """Let SQLite migrate in one transaction, without foreign keys until its end.

    SQLite changes a table by making it anew, and to drop the old one would delete what refers to it.

    Raises SystemExit when a row refers to one that does not exist; then nothing is changed.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    yield
    for table, _, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        sys.exit(f"No migration: {table} would refer to a row of {parent} that does not exist.")


def refuse_to_upgrade_without_revisions() -> None:
    """Let `alembic upgrade` not succeed where it finds no migration: a mount may hide them.

    Raises SystemExit.
    """
    command = getattr(context.config.cmd_opts, "cmd", [None])[0]
    if command is upgrade and not context.script.get_heads():
        sys.exit(f"No migration: {context.script.versions} holds none, or they cannot be read.")


def render(kind: str, part: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """Render a type or a default as text that needs nothing of the application and is right for each database.

    Alembic asks for it by its option for that.
    """
    if kind == "server_default":
        return DEFAULTS.get(type(getattr(part, "arg", None)), False)
    if kind != "type":
        return False
    if isinstance(part.dialect_impl(SQLITE), SQLiteUTC):
        return f"sa.{part!r}"
    if isinstance(part, Enum) and part.native_enum:
        # Alembic makes the type with a new table, not with a new column, and never drops it: `TypeOfEnum` does.
        return f"sa.{repr(part).removesuffix(')')}, create_type=False)"
    if isinstance(part, TypeDecorator) and not type(part).__module__.startswith("sqlalchemy."):
        return _repr_type(part.impl_instance, autogenerate)
    return False


def finish(migration: MigrationContext, _: object, scripts: list[ops.MigrationScript]) -> None:
    """Write no empty migration, and let one make the enumerations of its new columns, and drop them.

    It is `process_revision_directives` of Alembic.
    """
    if not getattr(context.config.cmd_opts, "autogenerate", False):
        return
    script = scripts[0]
    upgrade, downgrade = script.upgrade_ops, script.downgrade_ops
    if upgrade is None or downgrade is None or upgrade.is_empty():
        logger.warning(
            "No migration is written, because the models and the database agree. In a container the models are those "
            "of its image: build it first. For statements of your own, leave --autogenerate out."
        )
        scripts.clear()
        return
    # Only this one can write the types of PostgreSQL, and so the file is the same with whatever database it is written.
    migration.impl = PostgresqlImpl(POSTGRESQL, None, True, None, None, {})
    new = dict(new_columns(upgrade))
    metadata = migration.opts["target_metadata"]
    old = {
        enum_of(column): None
        for table in metadata.tables.values()
        for column in table.columns
        if (table.name, column.name) not in new
    }
    names = {enum.name for enum in old if enum}
    enums = {enum.name: enum for enum in map(enum_of, new.values()) if enum and enum.name not in names}
    for enum in enums.values():
        upgrade.ops.insert(0, TypeOfEnum(str(postgresql.CreateEnumType(enum).compile(dialect=POSTGRESQL))))
        downgrade.ops.append(TypeOfEnum(str(postgresql.DropEnumType(enum).compile(dialect=POSTGRESQL))))


def new_columns(upgrade: ops.UpgradeOps) -> Iterator[tuple[tuple[str, str], Column[Any]]]:
    """Yield each column that a migration adds, after the names of its table and of itself."""
    for operation in upgrade.ops:
        match operation:
            case ops.CreateTableOp(table_name=table, columns=parts):
                columns = [part for part in parts if isinstance(part, Column)]
            case ops.ModifyTableOps(table_name=table, ops=changes):
                columns = [change.column for change in changes if isinstance(change, ops.AddColumnOp)]
            case _:
                continue
        for column in columns:
            yield (table, column.name), column


def enum_of(column: Column[Any]) -> postgresql.ENUM | None:
    """Return the enumeration that a column, or each value of its array, has in PostgreSQL."""
    kept_as = getattr(column.type, "item_type", column.type).dialect_impl(POSTGRESQL)
    return kept_as if isinstance(kept_as, postgresql.ENUM) else None


class TypeOfEnum(ops.MigrateOperation):
    """Makes or drops a type of PostgreSQL; other databases have none."""

    def __init__(self, sql: str) -> None:
        self.sql = sql


@renderers.dispatch_for(TypeOfEnum)
def render_type_of_enum(_: AutogenContext, operation: TypeOfEnum) -> list[str]:
    """Render the lines of a migration."""
    return ['if op.get_context().dialect.name == "postgresql":', f"op.execute({operation.sql!r})", ""]


# Of Alembic, but for the connection and the models. A migration that was written with one database runs on the other.
OPTIONS: dict[str, Any] = {
    "render_as_batch": True,
    "render_item": render,
    "process_revision_directives": finish,
}
