"""Servers behind TLS, as hosting providers offer them: each is reached, and no certificate is taken on trust."""

import asyncio
import shutil
import ssl
import struct
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.highload.addresses import database_url as address_of
from app.highload.database import open_database

# {%- if cookiecutter.caching +%}
from app.highload.reads.cache import open_cache

# {%- endif +%}
from tests.conftest import stack_url
from tests.highload.notes import NAME

# {%- if cookiecutter.queued_writes +%}
from tests.queues import ask_broker, ask_broker_as_worker

# {%- endif +%}

# PostgreSQL manual, section 54.7: a client asks with this number whether the server speaks TLS.
SSL_REQUEST = struct.pack("!II", 8, 80_877_103)

type Ask = Callable[[str], Awaitable[None]]


def make_certificate(file: Path) -> Path:
    """Make a certificate of this machine with its key, which nobody trusts yet."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing: no certificate can be made")
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(file), "-out", str(file), "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", "req", "-x509", *key, *name], check=True, capture_output=True)
    return file


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path / "certificate.pem")


def trust(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust a certificate and no other, as the operator of a private authority does."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("PGSSLROOTCERT", str(certificate))


@asynccontextmanager
async def behind_tls(url: str, certificate: Path, *, scheme: str) -> AsyncGenerator[str]:
    """Yield the address of a server as it is with TLS in front of it."""
    parts = urlsplit(url)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if asks_first:
                assert await reader.readexactly(8) == SSL_REQUEST
                writer.write(b"S")
                await writer.start_tls(context)
            server_reader, server_writer = await asyncio.open_connection(parts.hostname, parts.port)
            await asyncio.gather(copy(reader, server_writer), copy(server_reader, writer))
        except OSError:
            # The client does not like the certificate.
            writer.close()

    asks_first = scheme == "postgresql"
    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=None if asks_first else context)
    credentials, at, _ = parts.netloc.rpartition("@")
    port = listener.sockets[0].getsockname()[1]
    try:
        yield parts._replace(scheme=scheme, netloc=f"{credentials}{at}localhost:{port}").geturl()
    finally:
        listener.close()


async def ask_database(url: str) -> None:
    # So a provider writes it for libpq.
    address = address_of(f"{url}?sslmode=verify-full")
    async with open_database(address, name=NAME, pool_size=1, timeout=30) as database:
        await database.ping()


# The scheme of each server behind TLS, and what asks it.
SERVERS: dict[str, tuple[str, Ask]] = {"DATABASE_URL": ("postgresql", ask_database)}
# {% if cookiecutter.caching %}


async def ask_cache(url: str) -> None:
    async with open_cache(url, name=NAME, ttl=60, timeout=30, max_waiting=1) as cache:
        await cache.ping()


SERVERS["REDIS_URL"] = ("rediss", ask_cache)
# {% endif %}
# {% if cookiecutter.queued_writes %}
SERVERS["BROKER_URL"] = ("amqps", ask_broker)
SERVERS["BROKER_URL of a worker"] = ("amqps", ask_broker_as_worker)
# {% endif %}


@pytest.fixture(params=SERVERS)
async def ask(request: pytest.FixtureRequest, certificate: Path) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """What asks a server for something, over TLS."""
    scheme, ask = SERVERS[request.param]
    url = stack_url(request.param.partition(" ")[0])
    async with behind_tls(url, certificate, scheme=scheme) as address:
        yield lambda: ask(address)


async def test_a_server_behind_tls_answers(
    ask: Callable[[], Awaitable[None]], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(certificate, monkeypatch)
    await ask()


async def test_a_server_that_nobody_vouches_for_is_not_asked(
    ask: Callable[[], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(make_certificate(tmp_path / "other.pem"), monkeypatch)
    with pytest.raises(Exception, match=r"(?i)certificate.verify.failed"):
        await ask()
