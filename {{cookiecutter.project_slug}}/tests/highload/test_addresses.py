"""An address is read in the same way by every client, or it is refused."""

from typing import Any
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
from sqlalchemy.dialects.postgresql.asyncpg import dialect as postgresql

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
        ("postgres://u:p@/d?host=h", ADDRESS),
        ("postgres://u:p@/d?host=h:5433", "postgresql+asyncpg://u:p@h:5433/d"),
        ("postgres://h", "postgresql+asyncpg://h"),
        ("postgres://u:p@h/d?", ADDRESS),
        (
            "postgres://u:p@h1,h2:5433/d?target_session_attrs=primary",
            "postgresql+asyncpg://u:p@/d?target_session_attrs=primary&host=h1%3A5432&host=h2%3A5433",
        ),
        ("postgres://u:p@/d?host=h1,h2", "postgresql+asyncpg://u:p@/d?host=h1%3A5432&host=h2%3A5432"),
        ("sqlite:///file.db", "sqlite+aiosqlite:///file.db"),
        ("sqlite:////srv/file.db", "sqlite+aiosqlite:////srv/file.db"),
        ("sqlite://", "sqlite+aiosqlite://"),
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
        ("POSTGRES://u:secret@h/d", "must begin with"),
        ("jdbc:postgresql://u:secret@h/d", "must begin with"),
        ("postgres://u:secret@h:0/d", "must have the form"),
        ("postgres://u:secret@[:::]/d", "must have the form"),
        ("postgres://u:secret@h*/d", "must have the form"),
        ("postgres://u:secret@%2Frun%2Fpostgresql/d", "must have the form"),
        ("postgres://u:secret@h1,,h2/d", "must have the form"),
        ("postgres://u:secret@h1:5432,h2:x/d", "must have the form"),
        ("postgres://u:secret@h,[::1]/d", "must have names or IPv4 addresses"),
        ("postgres://u:secret@h/d#fragment", "must have the form"),
        ("postgres://u:secret@h/d?host=other", "names its host twice"),
        ("postgres://u:secret@/d?host=/run/one,/run/two", "must have the form"),
        ("postgres://u:secret@/d?host=h x", "must have the form"),
        ("postgres://u:secret@h/d?port=5433", "takes no option port"),
        ("postgres://u:secret@h/d?options=-csearch_path%3Dx", "takes no option options"),
        ("postgres://u:secret@h/d?connect_timeout=10", "takes no option connect_timeout"),
        ("postgres://u:secret@h/d?application_name=x", "takes no option application_name"),
        ("postgres://u:secret@h/d?password=other", "takes no option password"),
        ("postgres://u:secret@h/d?pgbouncer=false", "takes no option pgbouncer"),
        ("postgres://u:secret@h/d?SSLMODE=require", "takes no option SSLMODE"),
        ("postgres://u:secret@h/d?sslmode=", "takes for sslmode one of"),
        ("postgres://u:secret@h/d?sslmode", "options of the form name=value"),
        ("postgres://u:secret@h/d?sslmode=require&&", "options of the form name=value"),
        ("postgres://u:secret@h/d?sslmode=require;ssl=disable", "takes for sslmode one of"),
        ("postgres://u:secret@h/d?sslmode=verify-full&ssl=disable", "takes sslmode only once"),
        ("postgres://u:secret@h/d?sslmode=require&sslmode=require", "takes sslmode only once"),
        ("postgres://u:secret@h/d?target_session_attrs=master", "target_session_attrs one of any, "),
        ("postgres://u:secret@h/d?prepared_statement_cache_size=no", "prepared_statement_cache_size a number"),
        ("postgres://u:secret@h/d?pgbouncer=true&prepared_statement_cache_size=5", "only once"),
        ("sqlite3:///file.db", "must have the form sqlite:///file.db"),
        ("sqlite+pysqlite:///file.db", "must have the form sqlite:///file.db"),
        ("sqlite:file.db", "must have the form sqlite:///file.db"),
        ("sqlite://file.db", "must have the form sqlite:///file.db"),
        ("sqlite:///file.db?mode=ro", "must have the form sqlite:///file.db"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(written: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        addresses.database_url(written)
    assert "secret" not in str(refused.value)


def test_the_driver_gets_each_of_several_hosts() -> None:
    url = make_url(addresses.database_url("postgres://u:p@h1,h2:5433/d?sslmode=require&target_session_attrs=primary"))
    dialect: Any = postgresql
    _, options = dialect().create_connect_args(url)
    assert options == {
        "user": "u",
        "password": "p",
        "database": "d",
        "host": ["h1", "h2"],
        "port": [5432, 5433],
        "ssl": "require",
        "target_session_attrs": "primary",
    }


# {% if cookiecutter.caching %}
@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("redis://h", {"host": "h"}),
        ("redis://default:p@h:6380/2", {"username": "default", "password": "p", "host": "h", "port": 6380, "db": 2}),
        ("rediss://h/", {"host": "h"}),
        (
            "rediss://h/0?ssl_cert_reqs=required&ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            {"host": "h", "db": 0, "ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
        ),
        ("unix:///run/redis.sock?db=3", {"path": "/run/redis.sock", "db": 3}),
    ],
)
def test_redis_gets_what_its_address_says(url: str, read: dict[str, Any]) -> None:
    given = parse_redis_url(addresses.redis_url(url))
    assert {name: value for name, value in given.items() if name != "connection_class"} == read


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://:secret@h/cache", "must have a number behind the host"),
        ("redis://:secret@h/0/1", "must have a number behind the host"),
        ("redis://:secret@h1,h2/0", "must name one host"),
        ("redis://:secret@/0", "must name a host"),
        ("redis://:secret@h/0?db=1", "takes no option db"),
        ("redis://:secret@h/0?socket_timeout=5", "takes no option socket_timeout"),
        ("redis://:secret@h/0?ssl_cert_reqs=none", "takes no option ssl_cert_reqs"),
        ("rediss://:secret@h/0?ssl_cert_reqs=CERT_NONE", "takes for ssl_cert_reqs one of none, optional, required"),
        ("rediss://:secret@h/0?ssl_ca_certs=", "takes for ssl_ca_certs a value"),
        ("redis+sentinel://:secret@h/0", "must begin with"),
        ("unix://:secret@run/redis.sock", "must have the form unix:///run/redis.sock"),
        ("unix://:secret@/", "must have the form unix:///run/redis.sock"),
        ("unix://:secret@/run/redis.sock?db=x", "takes for db a number"),
    ],
)
def test_an_address_of_redis_that_cannot_be_used_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        addresses.redis_url(url)
    assert "secret" not in str(refused.value)


# {% endif %}
# {% if cookiecutter.queued_writes %}
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("amqp://u:secret@h1,h2/", "must name one host"),
        ("amqp://u:secret@h1;amqp://h2/", "must have the form"),
        ("amqp://u:secret@/", "must name a host"),
        ("amqp://u:secret@h:0/", "must have the form"),
        ("amqp://u:secret@h/?heartbeat=30", "takes no option heartbeat"),
        ("amqps://u:secret@h/?no_verify_ssl=1", "takes no option no_verify_ssl"),
        ("pyamqp://u:secret@h/", "must begin with"),
        ("http://u:secret@h/", "must begin with"),
    ],
)
def test_an_address_of_the_broker_that_cannot_be_used_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as refused:
        addresses.broker_url(url)
    assert "secret" not in str(refused.value)


# {% endif %}
@pytest.mark.parametrize("character", "/@?#[]\\ \t\n")
def test_a_character_that_clients_read_differently_is_refused(character: str) -> None:
    with pytest.raises(ValueError, match="must have the form") as refused:
        addresses.database_url(f"postgres://u:top{character}secret@h/d")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("password", ["%A0", "%C3", "%ED%A0%80", "%E9t%E9"])
def test_bytes_that_are_no_text_are_refused(password: str) -> None:
    for url in (f"postgres://u:{password}@h/d", f"postgres://u@h/{password}"):
        with pytest.raises(ValueError, match="%25"):
            addresses.database_url(url)


UNDERSTOOD = "aZ0%4023:;&=+$,!~^<>|{}`'\"é"
REFUSED = "/@?#[]\\ \t\u3000"


# Of texts with any of these, most are refused, so that few would be tried.
@hypothesis.given(st.text(UNDERSTOOD, min_size=1) | st.text(UNDERSTOOD + REFUSED, min_size=1))
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
