"""An address is read in the same way by every client, or it is refused."""

from urllib.parse import unquote

import hypothesis
import pytest
from hypothesis import strategies as st

# {%- if cookiecutter.queued_writes +%}
from kombu.utils.url import parse_url

# {%- endif +%}
# {%- if cookiecutter.caching +%}
from redis.asyncio.connection import parse_url as parse_redis_url

# {%- endif +%}
from sqlalchemy import make_url

from app.highload import addresses

ADDRESS = "postgresql+asyncpg://u:p@h/d"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("postgres://u:p@h/d", ADDRESS),
        ("postgresql://u:p@h/d", ADDRESS),
        (f" {ADDRESS}\n", ADDRESS),
        ("postgres://u:p@h/d?sslmode=require", f"{ADDRESS}?ssl=require"),
        ("postgres://u:p@h/d?sslmode=verify-full", f"{ADDRESS}?ssl=verify-full"),
        ("postgres://u:p@h/d?pgbouncer=true", f"{ADDRESS}?prepared_statement_cache_size=0"),
        ("postgres://u:p%40%2F@[::1]:5433/d", "postgresql+asyncpg://u:p%40%2F@[::1]:5433/d"),
        ("postgres://u@/d?host=/run/postgresql", "postgresql+asyncpg://u@/d?host=%2Frun%2Fpostgresql"),
        ("sqlite:///file.db", "sqlite+aiosqlite:///file.db"),
    ],
)
def test_a_database_is_named_as_its_provider_writes_it(written: str, read: str) -> None:
    assert addresses.database_url(written) == read
    assert addresses.database_url(read) == read


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("mysql://u:secret@h/d", r"must begin with postgresql:// or postgres://"),
        ("postgresql+psycopg://u:secret@h/d", "must begin with"),
        ("u:secret@h/d", "must begin with"),
        ("postgres://u:secret@/d", "must name a host"),
        ("postgres://u:secret@:5432/d", "must name a host"),
        ("postgres://u:secret@h:port/d", "must have the form"),
        ("postgres://u:secret@h:65536/d", "must have the form"),
        ("postgres://u:secret@h o/d", "must have the form"),
        ("postgres://u:secret@[::1/d", "must have the form"),
        ("postgres://u:secret@h/d?sslmode=on", "takes for sslmode one of disable, "),
        ("postgres://u:secret@h/d?sslrootcert=ca.pem", "set the variable PGSSLROOTCERT instead"),
        ("postgres://u:secret@h/d?sslmode=require&channel_binding=require", "takes no option channel_binding"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(written: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        addresses.database_url(written)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("character", "/@?#[]\\ \t\n")
def test_a_character_that_clients_read_differently_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match="must have the form") as refused:
        addresses.database_url(f"postgres://u:top{character}secret@h/d")
    assert "secret" not in str(refused.value)


@hypothesis.given(st.text(st.sampled_from("aZ0%4023/@?#:;&=+$,[]!~^<>\\ |{}`'\"\té\u3000"), min_size=1))
def test_clients_agree_about_the_password(password: str) -> None:
    try:
        database = addresses.database_url(f"postgres://u:{password}@h/1")
    except ValueError:
        hypothesis.reject()
    expected = unquote(password)
    assert make_url(database).password == expected
    # {% if cookiecutter.caching %}
    assert parse_redis_url(addresses.redis_url(f"redis://u:{password}@h/1"))["password"] == expected
    # {% endif %}
    # {% if cookiecutter.queued_writes %}
    broker = addresses.broker_url(f"amqp://u:{password}@h/1")
    assert pytest.importorskip("yarl").URL(broker).password == parse_url(broker)["password"] == expected
    # {% endif %}
