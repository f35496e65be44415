"""Addresses of servers, refused before a client reads another password or another host in them.

The messages of what is refused repeat nothing of an address, because a password may be anywhere in it.
"""

import re
from collections.abc import Collection
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

# RFC 3986, section 3. Clients do not agree about what else may stand in a user, a password, or a path.
ADDRESS = re.compile(
    r"(?:[^\s@/?#\[\]\\]*@)?(?P<host>\[[\da-fA-F:.]+\]|[^\s@/?#\[\]\\:]*)(?::(?P<port>\d{1,5}))?"
    r"(?:/[^\s@?#]*)?(?:\?(?P<query>[^\s@#]*))?"
)
LAST_PORT = 65_535
SOCKET = "unix"

POSTGRESQL = "postgresql+asyncpg"
SQLITE = "sqlite+aiosqlite"
# What providers write for libpq and other clients, and what the driver takes.
SSL_OF_OTHERS = "sslmode"
POOLER_OF_OTHERS = ("pgbouncer", "true")
NO_PREPARED_STATEMENTS = ("prepared_statement_cache_size", "0")
OPTIONS = ("ssl", "host", "target_session_attrs", NO_PREPARED_STATEMENTS[0])
VARIABLES = {"sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY"}
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def is_sqlite(url: str) -> bool:
    """Whether a URL names a SQLite file, which needs no server."""
    return url.startswith("sqlite")


def database_url(url: str) -> str:
    """Turn the address of a database as people and hosting providers write it into one that names the driver.

    Raises ValueError.
    """
    if is_sqlite(url):
        return f"{SQLITE}://{url.partition('://')[2]}"
    address, _, query = server_url(url, ("postgresql", "postgres", POSTGRESQL)).partition("?")
    options = [NO_PREPARED_STATEMENTS if option == POOLER_OF_OTHERS else option for option in parse_qsl(query)]
    options = [("ssl" if name == SSL_OF_OTHERS else name, value) for name, value in options]
    for name, value in options:
        if name in VARIABLES:
            raise ValueError(f"takes no option {name}: set the variable {VARIABLES[name]} instead")
        if name not in OPTIONS:
            raise ValueError(f"takes no option {name}, which the driver asyncpg does not know: leave it out")
        if name == "ssl" and value not in SSL_MODES:
            raise ValueError(f"takes for {SSL_OF_OTHERS} one of {', '.join(SSL_MODES)}")
    return f"{POSTGRESQL}://{address.partition('://')[2]}{'?' if options else ''}{urlencode(options)}"


# {% if cookiecutter.caching %}
def redis_url(url: str) -> str:
    """Return the address of a Redis server.

    Raises ValueError.
    """
    return server_url(url, ("redis", "rediss", SOCKET))


# {% endif %}
# {% if cookiecutter.queued_writes %}
def broker_url(url: str) -> str:
    """Return the address of a RabbitMQ server.

    Raises ValueError.
    """
    return server_url(url, ("amqp", "amqps"))


# {% endif %}
def server_url(url: str, schemes: Collection[str]) -> str:
    """Return the address of a server without the spaces around it.

    Raises ValueError.
    """
    url = url.strip()
    scheme, _, rest = url.partition("://")
    if scheme not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{name}://' for name in schemes)}")
    address = ADDRESS.fullmatch(rest)
    if address is None or int(address["port"] or 0) > LAST_PORT:
        raise ValueError(
            f"must have the form {scheme}://user:password@host:port/name, in which a user, a password or a name has "
            r"%2F for /, %3A for :, %40 for @, %3F for ?, %23 for #, %5B for [, %5C for \, %5D for ], %20 for a space"
        )
    if not address["host"] and scheme != SOCKET and "host=" not in (address["query"] or ""):
        raise ValueError(f"must name a host: {scheme}://user:password@host/name")
    return url


def with_password(url: str, password: str | None) -> str:
    """Return an address with a password, of any characters, if it names a user and has none."""
    parts = urlsplit(url)
    if not password or not parts.username or parts.password is not None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}").geturl()
