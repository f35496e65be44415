"""What can break, how it is repaired, and what clients may see of it."""

import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tests.drills.stack import LONGEST_KEPT, REPLICAS, Stack

FAULT_SECONDS = 2.0
# Seconds until a client is told that the service cannot do something now: what docs/promises.md promises.
UNAVAILABLE_LIMIT = 2.0
# Seconds that an answer may be old.
# {% if not cookiecutter.caching %}
OLDEST = 0.0
# {% endif %}
# {% if cookiecutter.caching %}
# A process makes up within this time for an invalidation that Redis was too slow for. On a machine that is busy enough,
# Redis is away for a moment by itself.
OLDEST = 2.5
# {% endif %}

# What a request may end in, other than a good answer.
UNAVAILABLE = "503"
REFUSED = "refused"
BROKEN = "broken"
# A proxy says so when a replica that a request was sent to has not answered.
BAD_GATEWAY = "502"
GATEWAY_TIMEOUT = "504"
NO_ANSWER = frozenset([BAD_GATEWAY, GATEWAY_TIMEOUT])
SILENT = "silent"


class Fault(NamedTuple):
    """How to break parts, how to repair them, and what docs/promises.md lets clients see of it.

    `strike` returns when the parts are broken, `repair` when they answer their health checks again. A client gets a 503
    within `unavailable_within` seconds, and no answer that is older than `oldest` seconds. Where
    `repeatables_fail` is not set, only writes without an idempotency key may fail. `restore` puts in order what else
    has changed, for the next drill.
    """

    parts: frozenset[str]
    strike: Callable[[Stack], object]
    repair: Callable[[Stack], object] = lambda _: None
    failures: frozenset[str] = frozenset()
    seconds: float = FAULT_SECONDS
    unavailable_within: float = UNAVAILABLE_LIMIT
    oldest: float = OLDEST
    repeatables_fail: bool = True
    restore: Callable[[Stack], object] = lambda _: None


def killed(*services: str, failures: Sequence[str] = (), cache_away: bool = False) -> Fault:
    """Return the fault that containers are killed, and started again."""
    return Fault(
        frozenset(services),
        lambda stack: stack.compose("kill", *services),
        lambda stack: stack.up("--no-deps", *services),
        frozenset(failures),
        oldest=LONGEST_KEPT if cache_away else OLDEST,
    )


def frozen(service: str, *, failures: Sequence[str] = (), cache_away: bool = False) -> Fault:
    """Return the fault that a container hangs, and goes on."""
    return Fault(
        frozenset([service]),
        lambda stack: stack.freeze(service),
        lambda stack: stack.thaw(service),
        frozenset(failures),
        oldest=LONGEST_KEPT if cache_away else OLDEST,
    )


def process_killed(service: str, pattern: str, *, times: int = 1, failures: Sequence[str] = ()) -> Fault:
    """Return the fault that processes of a container are killed, which it replaces by itself."""

    def strike(stack: Stack) -> None:
        stack.signal_process("KILL", service, pattern)
        for _ in range(times - 1):
            time.sleep(random.uniform(0.2, 1))
            # Celery puts nothing in the place of a process while its broker is away.
            if stack.running(service, pattern):
                stack.signal_process("KILL", service, pattern)

    return Fault(frozenset([service]), strike, failures=frozenset(failures))


def process_frozen(service: str, pattern: str, *, failures: Sequence[str] = ()) -> Fault:
    """Return the fault that a process of a container hangs, keeps its clients waiting, and goes on."""

    def repair(stack: Stack) -> None:
        for process in stack.processes(service, pattern):
            stack.compose("exec", "-T", service, "sh", "-c", f"kill -CONT {process}")

    return Fault(
        frozenset([service]),
        lambda stack: stack.signal_process("STOP", service, pattern),
        repair,
        frozenset(failures),
        unavailable_within=math.inf,
    )


def stopped(service: str, *, failures: Sequence[str] = ()) -> Fault:
    """Return the event that a service is told to end, and started again."""
    return Fault(
        frozenset([service]),
        lambda stack: stack.stop(service),
        lambda stack: stack.up("--no-deps", service),
        frozenset(failures),
        seconds=0,
    )


def replaced(*services: str, failures: Sequence[str] = ()) -> Fault:
    """Return the event that services get new containers, as they do with a new image."""
    return Fault(
        frozenset(services),
        lambda stack: stack.compose("up", "--detach", "--no-deps", "--force-recreate", *services),
        lambda stack: stack.up("--no-deps", *services),
        frozenset(failures),
        seconds=0,
    )


def reloaded() -> Fault:
    """Return the event that the API replaces its processes by new ones."""
    return Fault(frozenset(["api"]), lambda stack: stack.compose("kill", "--signal", "HUP", "api"), seconds=3.5)


def one_killed(service: str, *, failures: Collection[str] = ()) -> Fault:
    """Return the fault that one of the containers of a service is killed, and started again."""
    return Fault(
        frozenset([service]),
        lambda stack: stack.kill_one(service),
        lambda stack: stack.up("--no-deps", "--no-recreate", service),
        frozenset(failures),
        repeatables_fail=False,
    )


# {% if cookiecutter.queued_writes %}
def scaled(service: str, count: int) -> Fault:
    """Return the event that a service gets more containers, and then one again."""
    scale = ("up", "--detach", "--no-deps", "--no-recreate", "--scale")
    return Fault(
        frozenset([service]),
        lambda stack: stack.compose(*scale, f"{service}={count}", service),
        lambda stack: stack.compose(*scale, f"{service}=1", service),
    )


# {% endif %}
OURS = ["api"]
# {% if cookiecutter.queued_writes %}
OURS.append("worker")
# {% endif %}
FAULTS = {
    "api-process-kill": process_killed("api", "gunicorn", failures=[BROKEN]),
    "api-process-freeze": process_frozen("api", "gunicorn", failures=[UNAVAILABLE]),
    "api-kill": killed("api", failures=[REFUSED, BROKEN]),
    "api-reload": reloaded(),
    "api-stop": stopped("api", failures=[REFUSED]),
    "replace": replaced(*OURS, failures=[REFUSED]),
    "database-kill": killed("db", failures=[UNAVAILABLE]),
    "database-freeze": frozen("db", failures=[UNAVAILABLE]),
    # {% if cookiecutter.caching %}
    "cache-kill": killed("redis", cache_away=True),
    "cache-freeze": frozen("redis", cache_away=True),
    # {% endif %}
    # {% if cookiecutter.queued_writes %}
    "broker-kill": killed("rabbitmq"),
    "broker-freeze": frozen("rabbitmq"),
    "worker-process-kill-repeatedly": process_killed("worker", "celery", times=3),
    "worker-kill": killed("worker"),
    "worker-freeze": frozen("worker"),
    "worker-stop": stopped("worker"),
    "worker-scale": scaled("worker", 3),
    "database-and-broker-kill": killed("db", "rabbitmq", failures=[UNAVAILABLE]),
    # {% endif %}
    # {% if cookiecutter.caching and cookiecutter.queued_writes %}
    "everything-kill": killed("db", "redis", "rabbitmq", failures=[UNAVAILABLE], cache_away=True),
    # {% endif %}
}
# Of several replicas behind a proxy.
REPLICATED = {
    "replica-kill": one_killed("api", failures=NO_ANSWER),
    "replica-replace": Fault(
        frozenset(["api"]),
        lambda stack: stack.replace("api"),
        failures=NO_ANSWER,
        repeatables_fail=False,
    ),
    "replica-scale-down": Fault(
        frozenset(["api"]),
        lambda stack: stack.scale(api=REPLICAS - 1),
        lambda stack: stack.scale(api=REPLICAS),
        NO_ANSWER,
        repeatables_fail=False,
    ),
    # {% if cookiecutter.queued_writes %}
    "one-worker-kill": one_killed("worker"),
    # {% endif %}
    "pooler-kill": killed("pgbouncer", failures=[UNAVAILABLE]),
}
DEPLOYS = frozenset(name for name in FAULTS if name.endswith(("reload", "stop", "replace", "scale")))


def together(faults: Sequence[Fault]) -> Fault:
    """Return the fault that all of these strike at the same time; the mildest of their promises counts."""

    def strike(stack: Stack) -> None:
        for fault in faults:
            fault.strike(stack)

    def repair(stack: Stack) -> None:
        # A worker answers its health check only when its broker does.
        for fault in sorted(faults, key=lambda fault: not fault.parts.isdisjoint(OURS)):
            fault.repair(stack)

    def restore(stack: Stack) -> None:
        for fault in faults:
            fault.restore(stack)

    return Fault(
        frozenset().union(*(fault.parts for fault in faults)),
        strike,
        repair,
        frozenset().union(*(fault.failures for fault in faults)),
        max(fault.seconds for fault in faults),
        max(fault.unavailable_within for fault in faults),
        max(fault.oldest for fault in faults),
        any(fault.repeatables_fail for fault in faults),
        restore,
    )
