"""Drills: break one part of the stack under load, and count what was accepted, stored, lost and doubled.

Runs on a compose project of its own and removes it at the end. Exits non-zero when an accepted item is lost or doubled,
or when the service does not recover in time.
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx2

PROJECT = Path(__file__).parent.parent
CLIENTS = 20
LOAD_SECONDS = 8.0
FAULT_SECONDS = 2.5
RECOVERY_LIMIT = 20.0
READY = 200
ACCEPTED = (201, 202)


class Stack:
    """The compose project of the drills."""

    def __init__(self, name: str, port: int) -> None:
        self._compose = ["docker", "compose", "--project-name", name]
        self._environment = os.environ | {"PORT": str(port), "WEB_CONCURRENCY": "2"}
        self.url = f"http://127.0.0.1:{port}"

    def compose(self, *arguments: str, text: str = "") -> str:
        """Run a command of Compose and return what it prints."""
        done = subprocess.run(
            [*self._compose, *arguments],
            cwd=PROJECT,
            env=self._environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"docker compose {' '.join(arguments)} failed: {done.stderr}")
        return done.stdout

    def sql(self, statement: str) -> list[str]:
        """Run a statement and return the lines of its result."""
        psql = ("exec", "-T", "db", "psql", "-U", "postgres", "-d", "db", "--tuples-only", "--no-align")
        return self.compose(*psql, text=statement).splitlines()

    def wait_until_ready(self) -> None:
        """Return when every part answers again."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx2.get(f"{self.url}/readyz", timeout=5).status_code == READY:
                    return
            except httpx2.TransportError:
                pass
            time.sleep(0.2)
        sys.exit("the stack did not get ready within a minute after the fault was repaired")

    def kill_process(self, service: str, pattern: str) -> None:
        """SIGKILL one process of a container, drawn by chance."""
        script = (
            "for status in /proc/[0-9]*/status; do process=${status%/status}; "
            f'tr "\\0" " " < $process/cmdline 2>/dev/null | grep -q "{pattern}" '
            '&& [ "$(sed -n s/^PPid:.//p $status)" = "$PARENT" ] && echo ${process#/proc/}; done; true'
        )
        parents = ("exec", "-T", "-e", "PARENT=1", service, "sh", "-c", script)
        children = self.compose(*parents).split()
        if not children:
            sys.exit(f"{service} has no process like '{pattern}' to kill")
        self.compose("exec", "-T", service, "sh", "-c", f"kill -9 {random.choice(children)}")


class Fault(NamedTuple):
    """How to break a part, and how to repair it."""

    strike: Callable[[Stack], object]
    repair: Callable[[Stack], object] = lambda _: None


def killed(*services: str) -> Fault:
    """Return the fault that containers are killed, and started again."""
    return Fault(
        lambda stack: stack.compose("kill", *services),
        lambda stack: stack.compose("up", "--detach", "--no-deps", *services),
    )


def frozen(service: str) -> Fault:
    """Return the fault that a container hangs, and goes on."""
    return Fault(lambda stack: stack.compose("pause", service), lambda stack: stack.compose("unpause", service))


FAULTS = {
    "api-process-kill": Fault(lambda stack: stack.kill_process("api", "gunicorn")),
    "api-reload": Fault(lambda stack: stack.compose("kill", "--signal", "HUP", "api")),
    "database-kill": killed("db"),
    "database-freeze": frozen("db"),
    # {% if cookiecutter.caching %}
    "cache-kill": killed("redis"),
    "cache-freeze": frozen("redis"),
    # {% endif %}
    # {% if cookiecutter.queued_writes %}
    "broker-kill": killed("rabbitmq"),
    "broker-freeze": frozen("rabbitmq"),
    "worker-process-kill": Fault(lambda stack: stack.kill_process("worker", "celery")),
    "worker-kill": killed("worker"),
    "database-and-broker-kill": killed("db", "rabbitmq"),
    # {% endif %}
}


class Load:
    """Clients that send new items, read lists, and remember every answer.

    Each item has a name of its own. Half of the requests carry an idempotency key and are repeated after an error.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = False
        self.answers: Counter[str] = Counter()
        self.accepted: dict[str, str] = {}
        self.mistaken: list[str] = []
        self.slowest = 0.0
        self.last_failure = 0.0

    async def run(self, seconds: float) -> None:
        """Send for so long."""
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._be_a_client(keyed=number % 2 == 0))
            await asyncio.sleep(seconds)
            self._stopping = True

    async def _be_a_client(self, *, keyed: bool) -> None:
        async with httpx2.AsyncClient(base_url=self._url, timeout=15) as client:
            while not self._stopping:
                name = str(uuid4())
                headers = {"Idempotency-Key": name} if keyed else {}
                status = await self._send(client, name, headers)
                while keyed and status not in ACCEPTED and not self._stopping:
                    await asyncio.sleep(0.1)
                    status = await self._send(client, name, headers)
                await self._read(client)

    async def _send(self, client: httpx2.AsyncClient, name: str, headers: dict[str, str]) -> int:
        started = time.monotonic()
        try:
            response = await client.post("/items", json={"name": name}, headers=headers)
        except httpx2.TransportError as error:
            self._note(type(error).__name__, started)
            return 0
        self._note(f"POST {response.status_code}", started)
        if response.status_code in ACCEPTED:
            item_id = response.json()["id"]
            if self.accepted.setdefault(name, item_id) != item_id:
                self.mistaken.append(name)
        return response.status_code

    async def _read(self, client: httpx2.AsyncClient) -> None:
        started = time.monotonic()
        try:
            response = await client.get("/items")
        except httpx2.TransportError as error:
            self._note(type(error).__name__, started)
            return
        self._note(f"GET {response.status_code}", started)

    def _note(self, answer: str, started: float) -> None:
        now = time.monotonic()
        self.answers[answer] += 1
        self.slowest = max(self.slowest, now - started)
        if not answer.endswith(("200", "201", "202")):
            self.last_failure = now


class Outcome(NamedTuple):
    """What a drill counted."""

    answers: Counter[str]
    accepted: int
    stored: int
    lost: int
    doubled: int
    recovery: float
    slowest: float

    @property
    def passed(self) -> bool:
        """Whether nothing was lost or doubled, and the service recovered in time."""
        return not self.lost and not self.doubled and self.recovery <= RECOVERY_LIMIT


async def drill(stack: Stack, fault: Fault) -> Outcome:
    """Strike and repair under load, let the system come to rest, and count."""
    load = Load(stack.url)
    loading = asyncio.create_task(load.run(LOAD_SECONDS))
    await asyncio.sleep(1 + random.random())
    await asyncio.to_thread(fault.strike, stack)
    await asyncio.sleep(FAULT_SECONDS)
    await asyncio.to_thread(fault.repair, stack)
    repaired = time.monotonic()
    await loading
    stored = await come_to_rest(stack, load)
    names = Counter(line.partition("|")[0] for line in stored)
    ids = dict(line.split("|") for line in stored)
    return Outcome(
        load.answers,
        len(load.accepted),
        len(stored),
        sum(ids.get(name) != item_id for name, item_id in load.accepted.items()),
        sum(count - 1 for count in names.values()) + len(load.mistaken),
        max(0.0, load.last_failure - repaired),
        load.slowest,
    )


async def come_to_rest(stack: Stack, load: Load) -> Sequence[str]:
    """Return the stored names and ids, after every accepted item is there or has had time to arrive."""
    deadline = time.monotonic() + 60
    while True:
        stored = await asyncio.to_thread(stack.sql, "SELECT name, id FROM items;")
        missing = load.accepted.keys() - {line.partition("|")[0] for line in stored}
        if not missing or time.monotonic() > deadline:
            return stored
        await asyncio.sleep(1)


HEADER = (
    f"{'fault':<26}{'accepted':>9}{'stored':>8}{'lost':>6}{'doubled':>9}{'recovery s':>12}{'slowest s':>11}  answers"
)


def row(name: str, outcome: Outcome) -> str:
    """Return a line of the report."""
    answers = ", ".join(f"{answer} x {count}" for answer, count in sorted(outcome.answers.items()))
    counts = f"{outcome.accepted:>9}{outcome.stored:>8}{outcome.lost:>6}{outcome.doubled:>9}"
    return f"{name:<26}{counts}{outcome.recovery:>12.1f}{outcome.slowest:>11.2f}  {answers}"


def main() -> int:
    """Run the drills that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="make drill", description=__doc__)
    parser.add_argument("fault", nargs="*", choices=[*FAULTS, []], help="one of these; all without an argument")
    parser.add_argument("--port", type=int, default=8900, help="port of the drill's API")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats the draws of a run")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    print(f"seed {arguments.seed}\n{HEADER}", flush=True)
    stack = Stack(f"{PROJECT.name}-drill", arguments.port)
    outcomes: dict[str, Outcome] = {}
    try:
        stack.compose("up", "--build", "--detach", "--wait")
        for name in arguments.fault or FAULTS:
            print(f"{name} ...", end="\r", file=sys.stderr, flush=True)
            stack.sql("TRUNCATE items;")
            outcomes[name] = asyncio.run(drill(stack, FAULTS[name]))
            print(row(name, outcomes[name]), flush=True)
            stack.wait_until_ready()
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")
    lines = [f"seed {arguments.seed}", HEADER, *(row(name, outcome) for name, outcome in outcomes.items())]
    (PROJECT / "drill-report.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return sum(not outcome.passed for outcome in outcomes.values())


if __name__ == "__main__":
    sys.exit(main())
