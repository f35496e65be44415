"""The compose project of the drills."""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

PROJECT = Path(__file__).parents[2]
WORKERS = 2
# Seconds that an answer may be kept.
LONGEST_KEPT = 5
# A refusal waits until a worker has begun with what it let in: this many requests take it less than 0.1 s.
LIMIT_CONCURRENCY = 50
# What docker-compose.yml and app/config.py set for the rest of the connection budget.
POOL_SIZE = 5
RESERVED = 10
# {% if cookiecutter.queued_writes %}
WORKER_REPLICAS = 3
WORKER_CONCURRENCY = 2
# {% endif %}
# Of the API, where there are several.
REPLICAS = 3
# Connections of PgBouncer to PostgreSQL.
POOLER_SIZE = 10
PORT = 8000
CLUSTER_FILES = ("docker-compose.yml", "docker-compose.cluster.yml")
# Seconds that a container has to end, of the 35 and 60 after which Docker kills it.
STOP_LIMIT = 15.0
# What runc says where the next attempt may succeed.
CANNOT_FREEZE = "unable to freeze"
FREEZE_ATTEMPTS = 10
# Seconds in which a service starts processes in the places of those that were killed.
REPLACED_WITHIN = 10.0
CONNECTIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND datname = current_database() AND application_name <> 'psql';
"""


class Stack:
    """The containers, and what a drill does to them.

    With several `replicas` of the API, nginx stands before them, two containers store what is queued, and PgBouncer
    stands before PostgreSQL. In a `cluster`, each server is several, and PostgreSQL a `primary` and a `standby`.
    """

    def __init__(self, name: str, port: int, *, replicas: int = 1, cluster: bool = False) -> None:
        self._replicated = replicas > 1
        self._scale = {"api": replicas}
        # {% if cookiecutter.queued_writes %}
        self._scale["worker"] = 2 if self._replicated else 1
        # {% endif %}
        self.primary, self.standby = "db", "standby"
        files = [f"--file={file}" for file in CLUSTER_FILES] if cluster else []
        self._compose = ["docker", "compose", "--project-name", name, *files]
        settings: dict[str, object] = {
            "PORT": port,
            "COMPOSE_PROFILES": "",
            "DATABASE_HOST": "db",
            # The servers of the compose file, whatever .env names.
            "DATABASE_URL": "",
            # The clients of the drills have no key, and want no bound.
            "API_KEYS_FILE": "",
            "RATE_LIMIT": "",
            "WEB_CONCURRENCY": WORKERS,
            "LIMIT_CONCURRENCY": LIMIT_CONCURRENCY,
            # {% if cookiecutter.caching %}
            "REDIS_URL": "",
            "CACHE_TTL": LONGEST_KEPT,
            # {% endif %}
            # {% if cookiecutter.queued_writes %}
            "BROKER_URL": "",
            # {% endif %}
        }
        if self._replicated:
            lines = (PROJECT / "scaled.env").read_text(encoding="utf-8").splitlines()
            settings |= dict(line.split("=", 1) for line in lines if not line.startswith("#"))
            settings |= {"PROXY_PORT": port, "PGBOUNCER_POOL_SIZE": POOLER_SIZE, "WEB_CONCURRENCY": 1}
        self._environment = os.environ | {name: str(value) for name, value in settings.items()}
        self._published = "127.0.0.1", port
        self.address = self._published
        self.most_connections = 0

    @property
    def direct(self) -> bool:
        """Whether clients reach the container itself.

        Where they cannot, a proxy of Docker accepts their connections also while the container does not.
        """
        return self.address != self._published

    @property
    def budget(self) -> int:
        """How many connections the database may have."""
        return POOLER_SIZE + RESERVED if self._replicated else connection_budget()

    def compose(self, *arguments: str, text: str = "") -> str:
        """Run a command of Compose and return what it prints."""
        return output_of(self._run(*arguments, text=text))

    def _run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._compose, *arguments],
            cwd=PROJECT,
            env=self._environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self, *arguments: str) -> None:
        """Start services and return when they answer their health checks."""
        self.compose("up", "--detach", "--wait", *self._scaled(arguments), *arguments)
        self.locate()

    def scale(self, **counts: int) -> None:
        """Let services have other numbers of containers; what runs goes on."""
        self._scale |= counts
        self.compose(*("up", "--detach", "--no-deps", "--no-recreate", "--wait"), *self._scaled(counts), *counts)

    def _scaled(self, services: Iterable[str]) -> list[str]:
        """Return the options for the numbers of containers: of the services that arguments name, or of all."""
        named = {name for name in services if not name.startswith("-")} or self._scale.keys()
        return [
            word for name in sorted(named & self._scale.keys()) for word in ("--scale", f"{name}={self._scale[name]}")
        ]

    def kill_one(self, service: str) -> None:
        """Kill one of the containers of a service, drawn by chance."""
        container = random.choice(self.compose("ps", "--quiet", service).split())
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)

    def replace(self, service: str) -> None:
        """Start as many containers with another setting beside those of a service, and then end the old ones."""
        count = self._scale[service]
        self._environment["CLIENT_TIMEOUT"] = str(random.randrange(20, 1000))
        self.scale(**{service: 2 * count})
        self._scale[service] = count
        self.up("--no-deps", service)

    def remove(self) -> None:
        """Remove the containers and their data."""
        self.compose("down", "--volumes", "--timeout", "5")

    def locate(self) -> None:
        """Find the address of the container that clients reach, which a new one may change, unless it is away."""
        container = self.compose("ps", "--quiet", "proxy" if self._replicated else "api").strip()
        if not container:
            return
        inspected = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout
        (network,) = json.loads(inspected)[0]["NetworkSettings"]["Networks"].values()
        with suppress(OSError), socket.create_connection((network["IPAddress"], PORT), timeout=1):
            self.address = network["IPAddress"], PORT

    def freeze(self, service: str) -> None:
        """Let the processes of a container hang until `thaw`.

        Where control groups are of version 1, runc gives up when a process of the container starts at that moment, as
        a health check does. The next attempt has another chance.
        """
        for _ in range(FREEZE_ATTEMPTS):
            done = self._run("pause", service)
            if CANNOT_FREEZE not in done.stderr:
                break
        output_of(done)

    def thaw(self, service: str) -> None:
        """Let the processes of a frozen container go on."""
        self.compose("unpause", service)

    def stop(self, *services: str) -> None:
        """Stop services, and exit when one of them does not end by itself and soon."""
        containers = self.compose("ps", "--quiet", *services).split()
        started = time.monotonic()
        self.compose("stop", *services)
        seconds = time.monotonic() - started
        if seconds > STOP_LIMIT:
            sys.exit(f"{', '.join(services)} took {seconds:.0f} s to stop")
        codes = exit_codes(containers)
        if set(codes) != {"0"}:
            sys.exit(f"{', '.join(services)} had to be killed, or failed while stopping: exit codes {codes}")

    def exit_code(self, service: str) -> str:
        """Return with which code the container of a service has ended."""
        (code,) = exit_codes(self.compose("ps", "--all", "--quiet", service).split())
        return code

    def sql(self, statement: str) -> list[str]:
        """Run a statement and return the lines of its result."""
        return self.compose(*psql(self.primary), text=statement).splitlines()

    def processes(self, service: str, pattern: str) -> list[str]:
        """Return the ids of the processes that the service of a container started, and exit where there are none."""
        found = self.running(service, pattern)
        if not found:
            sys.exit(f"{service} has no process like '{pattern}'")
        return found

    def running(self, service: str, pattern: str) -> list[str]:
        """Return the ids of the processes that the service of a container started; their command matches.

        Where all of them were killed a moment ago, this waits for those that take their places, and may wait in vain.
        """
        script = (
            "for process in /proc/[0-9]*; do "
            f'tr "\\0" " " < $process/cmdline 2>/dev/null | grep -q "{pattern}" '
            "&& echo ${process#/proc/} $(sed -n s/^PPid:.//p $process/status); done; true"
        )
        deadline = time.monotonic() + REPLACED_WITHIN
        while time.monotonic() < deadline:
            lines = self.compose("exec", "-T", service, "sh", "-c", script).splitlines()
            # A process that ends while it is looked at has no parent any more.
            parents = dict(pair for pair in map(str.split, lines) if len(pair) == 2)
            found = [process for process, parent in parents.items() if parents.get(parent) == "1"]
            if found:
                return found
            time.sleep(0.1)
        return []

    def signal_process(self, signal: str, service: str, pattern: str) -> str:
        """Send a signal to one process of a container, drawn by chance, and return its id."""
        process = random.choice(self.processes(service, pattern))
        self.compose("exec", "-T", service, "sh", "-c", f"kill -{signal} {process}")
        return process

    def memory(self) -> int:
        """Return the kilobytes that the workers of the API hold (resident set)."""
        script = f"cat {' '.join(f'/proc/{process}/status' for process in self.processes('api', 'gunicorn'))}"
        lines = self.compose("exec", "-T", "api", "sh", "-c", script).splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    @asynccontextmanager
    async def apart_from_load(self) -> AsyncGenerator[None]:
        """Leave one CPU to this process, which loads the service, during the block, where there are two of them."""
        if sys.platform != "linux" or len(cpus := os.sched_getaffinity(0)) < 2:
            yield
            return
        own, *others = cpus
        try:
            # In a virtual machine Docker may have fewer CPUs, and refuse: then they are not the same ones either.
            if await asyncio.to_thread(self._run_on, others):
                os.sched_setaffinity(0, [own])
            yield
        finally:
            os.sched_setaffinity(0, cpus)
            await asyncio.to_thread(self._run_on, cpus)

    def _run_on(self, cpus: Iterable[int]) -> bool:
        containers = self.compose("ps", "--quiet").split()
        update = ["docker", "update", "--cpuset-cpus", ",".join(map(str, cpus)), *containers]
        return subprocess.run(update, capture_output=True, check=False).returncode == 0

    @asynccontextmanager
    async def counting_connections(self) -> AsyncGenerator[None]:
        """Note the most connections that the database has at the same time during the block."""
        self.most_connections = 0
        counting = asyncio.create_task(self._count_connections())
        try:
            yield
        finally:
            counting.cancel()
            await asyncio.wait([counting])

    async def _count_connections(self) -> None:
        statement = " ".join(CONNECTIONS.split()).removesuffix(";") + " \\watch i=0.2 c=100\n"
        while True:
            process = await asyncio.create_subprocess_exec(
                *(*self._compose, *psql(self.primary, "--quiet")),
                cwd=PROJECT,
                env=self._environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            assert process.stdin
            assert process.stdout
            try:
                process.stdin.write(statement.encode())
                # It ends with the database, or soon by itself, and begins again.
                async for line in process.stdout:
                    if line.strip().isdigit():
                        self.most_connections = max(self.most_connections, int(line))
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()
            await asyncio.sleep(0.5)


def exit_codes(containers: Sequence[str]) -> list[str]:
    """Return with which codes containers have ended."""
    inspect = ["docker", "inspect", "--format", "{" + "{.State.ExitCode}" + "}", *containers]
    return subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.split()


def output_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed; exit with its errors when it failed."""
    if done.returncode:
        sys.exit(f"{' '.join(done.args)} failed: {done.stderr}")
    return done.stdout


def psql(service: str, *options: str) -> list[str]:
    """Return the command that reads statements from its input."""
    return ["exec", "-T", service, "psql", "-U", "postgres", "-d", "db", "--tuples-only", "--no-align", *options]


def connection_budget() -> int:
    """Return how many connections the service may hold by its settings (see docs/settings.md)."""
    shares = [WORKERS * POOL_SIZE, RESERVED]
    # {% if cookiecutter.queued_writes %}
    shares.append(WORKER_REPLICAS * WORKER_CONCURRENCY)
    # {% endif %}
    return sum(shares)
