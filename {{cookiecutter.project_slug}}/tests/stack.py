"""Run a command while the servers of the compose file run on free local ports.

A server whose URL is set already, in DATABASE_URL for example, is used as it is. The command finds every address in a
variable that begins with TEST_, such as TEST_DATABASE_URL. The tests empty the tables and queues that they find there.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

PROJECT = Path(__file__).parent.parent
COMPOSE = ["docker", "compose", "--file", "docker-compose.yml", "--file", "tests/docker-compose.stack.yml"]


class Part(NamedTuple):
    """A server: its variable, its service and port in the compose file, its secret and the form of its URL."""

    variable: str
    service: str
    port: int
    secret: str
    url: str


PARTS = [
    Part("DATABASE_URL", "db", 5432, "POSTGRES_PASSWORD", "postgresql+asyncpg://postgres:{secret}@{address}/db"),
    # {% if cookiecutter.caching %}
    Part("REDIS_URL", "redis", 6379, "REDIS_PASSWORD", "redis://:{secret}@{address}/0"),
    # {% endif %}
    # {% if cookiecutter.queued_writes %}
    Part("BROKER_URL", "rabbitmq", 5672, "RABBITMQ_PASSWORD", "amqp://app:{secret}@{address}/"),
    # {% endif %}
]


def secrets() -> dict[str, str]:
    """Return what .env sets."""
    lines = (PROJECT / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """Start the servers that no variable names, yield the addresses of all, and remove what was started."""
    found = {part.variable: os.environ[part.variable] for part in PARTS if os.environ.get(part.variable)}
    missing = [part for part in PARTS if part.variable not in found]
    if not missing:
        yield found
        return
    values = secrets()
    compose = [*COMPOSE, "--project-name", f"{PROJECT.name}-stack-{os.getpid()}"]
    try:
        services = [part.service for part in missing]
        subprocess.run([*compose, "up", "--detach", "--wait", *services], cwd=PROJECT, check=True)
        for part in missing:
            port = [*compose, "port", part.service, str(part.port)]
            address = subprocess.run(port, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.strip()
            found[part.variable] = part.url.format(secret=quote(values[part.secret], safe=""), address=address)
        yield found
    finally:
        subprocess.run([*compose, "down", "--volumes", "--timeout", "5"], cwd=PROJECT, check=True)


def main() -> int:
    """Run the command and return its exit status."""
    with servers() as urls:
        # The service under test takes what a test gives it, and nothing of the shell.
        environment = {name: value for name, value in os.environ.items() if name not in urls}
        environment |= {f"TEST_{name}": url for name, url in urls.items()}
        return subprocess.run(sys.argv[1:], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
