"""Addresses of servers, refused before a client reads another password or another host in them.

Each part of an address is understood by every client that gets it, or refused. The messages of what is refused repeat
no value of an address, because a password may be anywhere in it.
"""

import re
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

# RFC 3986, section 3. Clients do not agree about what else may stand in a user, a password, or a path.
ADDRESS = re.compile(
    r"(?P<user>(?:[^\s@/?#\[\]\\]*@)?)(?P<hosts>[^\s@/?#\\]*)(?P<path>(?:/[^\s@?#]*)?)(?:\?(?P<query>[^\s@#]*))?"
)
HOST = re.compile(r"(?:\[(?P<address>[\da-fA-F:.]+)\]|[\w.-]+)(?::(?P<port>\d{1,5}))?")
PORTS = range(1, 65_536)

POSTGRESQL = "postgresql+asyncpg"
POSTGRESQL_PORT = 5432
SQLITE = "sqlite+aiosqlite"
SQLITE_FILE = re.compile(r"sqlite(?:\+aiosqlite)?://(?P<file>(?:/[^?]*)?)")
# What providers write for libpq and other clients, and what the driver takes.
SSL_OF_OTHERS = "sslmode"
POOLER_OF_OTHERS = ("pgbouncer", "true")
NO_PREPARED_STATEMENTS = ("prepared_statement_cache_size", "0")
VARIABLES = {"sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY"}
# What each option may be.
OPTIONS = {
    "ssl": "disable|allow|prefer|require|verify-ca|verify-full",
    "target_session_attrs": "any|primary|standby|read-write|read-only|prefer-standby",
    NO_PREPARED_STATEMENTS[0]: r"\d+",
    "host": ".+",
}
# {% if cookiecutter.caching %}
SOCKET = "unix"
REDIS_OPTIONS = {"ssl_cert_reqs": "none|optional|required", "ssl_check_hostname": "true|false", "ssl_ca_certs": ".+"}
# {% endif %}


class Address(NamedTuple):
    """The parts of an address as they are written; the user ends with @ and the path begins with /, if there is any."""

    scheme: str
    user: str
    hosts: list[str]
    path: str
    options: list[tuple[str, str]]

    def __str__(self) -> str:
        """Return the address."""
        query = f"?{urlencode(self.options)}" if self.options else ""
        return f"{self.scheme}://{self.user}{','.join(self.hosts)}{self.path}{query}"


def is_sqlite(url: str) -> bool:
    """Whether a URL names a SQLite file, which needs no server."""
    return url.startswith("sqlite")


def database_url(url: str) -> str:
    """Turn the address of a database as people and hosting providers write it into one that names the driver.

    Raises ValueError.
    """
    url = url.strip()
    if is_sqlite(url):
        file = SQLITE_FILE.fullmatch(url)
        if file is None:
            raise ValueError("must have the form sqlite:///file.db for a SQLite file, without options")
        return f"{SQLITE}://{file['file']}"
    address = parts_of(url, ("postgresql", "postgres", POSTGRESQL))
    options = [NO_PREPARED_STATEMENTS if option == POOLER_OF_OTHERS else option for option in address.options]
    options = [("ssl" if name == SSL_OF_OTHERS else name, value) for name, value in options]
    for name, _ in options:
        if name in VARIABLES:
            raise ValueError(f"takes no option {name}: set the variable {VARIABLES[name]} instead")
        if name not in OPTIONS:
            raise ValueError(f"takes no option {name}, which the driver asyncpg does not know: leave it out")
    check_options([option for option in options if option[0] != "host"], OPTIONS, {"ssl": SSL_OF_OTHERS})
    return str(with_hosts_in_place(address._replace(scheme=POSTGRESQL, options=options)))


def with_hosts_in_place(address: Address) -> Address:
    """Return the address of a database with one host in its place, and several, or a socket, in options.

    Raises ValueError.
    """
    options = address.options
    named = [host for name, value in options if name == "host" for host in value.split(",")]
    others = [option for option in options if option[0] != "host"]
    if named and address.hosts:
        raise ValueError("names its host twice: keep the one behind the @, or the option host")
    if not named and not address.hosts:
        raise ValueError("must name a host: postgresql://user:password@host/name")
    if len(named) == 1 and named[0].startswith("/"):
        return address
    hosts = [checked_host(host, "postgresql") for host in named or address.hosts]
    if len(hosts) == 1:
        return address._replace(hosts=hosts, options=others)
    if any(host.startswith("[") for host in hosts):
        raise ValueError("must have names or IPv4 addresses where it has several hosts")
    with_ports = [host if ":" in host else f"{host}:{POSTGRESQL_PORT}" for host in hosts]
    return address._replace(hosts=[], options=[*others, *(("host", host) for host in with_ports)])


# {% if cookiecutter.caching %}
def redis_url(url: str) -> str:
    """Return the address of a Redis server.

    Raises ValueError.
    """
    address = parts_of(url, ("redis", "rediss", SOCKET))
    if address.scheme == SOCKET:
        if address.hosts or not address.path.strip("/"):
            raise ValueError("must have the form unix:///run/redis.sock?db=0, with the path of a socket")
        check_options(address.options, {"db": r"\d+"})
        return str(address)
    check_single_host(address)
    if not re.fullmatch(r"(?:/\d*)?", address.path):
        raise ValueError(f"must have a number behind the host, as in {address.scheme}://host/0")
    check_options(address.options, REDIS_OPTIONS if address.scheme == "rediss" else {})
    return str(address)


# {% endif %}
# {% if cookiecutter.queued_writes %}
def broker_url(url: str) -> str:
    """Return the address of a RabbitMQ server.

    Raises ValueError.
    """
    address = parts_of(url, ("amqp", "amqps"))
    check_single_host(address)
    # The clients of the API and of the workers know none that means the same to both.
    check_options(address.options, {})
    return str(address)


# {% endif %}
def parts_of(url: str, schemes: Collection[str]) -> Address:
    """Return the parts of an address, without the spaces around it.

    Raises ValueError.
    """
    scheme, _, rest = url.strip().partition("://")
    if scheme not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{name}://' for name in schemes)}")
    parts = ADDRESS.fullmatch(rest)
    if parts is None:
        raise ValueError(form_of(scheme))
    try:
        unquote(parts["user"] + parts["path"], errors="strict")
    except UnicodeDecodeError:
        raise ValueError("must have characters of UTF-8 behind each %: write %25 for a % itself") from None
    hosts = [checked_host(host, scheme) for host in parts["hosts"].split(",")] if parts["hosts"] else []
    try:
        query = parse_qsl(parts["query"] or "", keep_blank_values=True, strict_parsing=bool(parts["query"]))
    except ValueError:
        raise ValueError("must have options of the form name=value behind the ?, and & between them") from None
    return Address(scheme, parts["user"], hosts, parts["path"], query)


def form_of(scheme: str) -> str:
    """Return the sentence for an address of which clients would read other parts than its author meant."""
    return (
        f"must have the form {scheme}://user:password@host:port/name, in which a user, a password or a name has "
        r"%2F for /, %3A for :, %40 for @, %3F for ?, %23 for #, %5B for [, %5C for \, %5D for ], %20 for a space"
    )


def checked_host(text: str, scheme: str) -> str:
    """Return a host, with its port if it has one.

    Raises ValueError.
    """
    if text.startswith(":"):
        raise ValueError(f"must name a host: {scheme}://user:password@host/name")
    host = HOST.fullmatch(text)
    if host is None or int(host["port"] or PORTS[0]) not in PORTS:
        raise ValueError(form_of(scheme))
    if host["address"]:
        try:
            ip_address(host["address"])
        except ValueError:
            raise ValueError(form_of(scheme)) from None
    return text


# {% if cookiecutter.caching or cookiecutter.queued_writes %}
def check_single_host(address: Address) -> None:
    """Check that an address names one host.

    Raises ValueError.
    """
    if len(address.hosts) != 1:
        raise ValueError(
            f"must name {'one' if address.hosts else 'a'} host: {address.scheme}://user:password@host/name"
        )


# {% endif %}
def check_options(
    options: Collection[tuple[str, str]], known: Mapping[str, str], written: Mapping[str, str] | None = None
) -> None:
    """Check that options are known, have values of the form that is given for each, and are there once.

    `written` are the names that people know, where they are others. Raises ValueError.
    """
    names = [name for name, _ in options]
    for name, value in options:
        if name not in known:
            raise ValueError(f"takes no option {name} here: leave it out")
        people_write = (written or {}).get(name, name)
        if names.count(name) > 1:
            raise ValueError(f"takes {people_write} only once")
        if not re.fullmatch(known[name], value):
            choices = known[name].replace(r"\d+", "a number").replace(".+", "a value")
            raise ValueError(f"takes for {people_write} {'one of ' * ('|' in choices)}{choices.replace('|', ', ')}")


def with_password(url: str, password: str | None) -> str:
    """Return an address with a password, of any characters, if it names a user and has none."""
    parts = urlsplit(url)
    if not password or not parts.username or parts.password is not None:
        return url
    user, _, place = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}").geturl()
