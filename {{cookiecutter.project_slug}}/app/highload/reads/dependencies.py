"""FastAPI dependencies of the engine: what the lifespan opened, and who the client is.

They are the only ones through which a shared route may look beyond its declared parameters, because the engine knows
what each of them depends on.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import isawaitable, iscoroutinefunction
from typing import Any, NamedTuple

from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

# In the scope of a shared run: what its guards have granted to all who share it.
GRANTED = "highload.granted"


@dataclass(frozen=True, slots=True)
class Opened:
    """What the lifespan yields under a name, which is the same for every client: `Depends(Opened("reader"))`."""

    name: str

    async def __call__(self, connection: HTTPConnection) -> Any:
        """Return it.

        Raises RuntimeError when the lifespan yields nothing of this name.
        """
        state = connection.scope["state"]
        if self.name not in state:
            raise RuntimeError(f"The lifespan yields nothing named {self.name!r}: add it in app/main.py.")
        return state[self.name]


class Granted(NamedTuple):
    """What a guard has found out about a client.

    `partition` names the group of clients whose answers are the same, such as a tenant. Within it shared reads are
    shared; across partitions nothing is. `principal` is who the client is; only routes that are not shared see it.
    """

    principal: Any = None
    partition: str = ""


class Guard(SecurityBase):
    """A dependency that lets a request pass or refuses it, also before a shared answer is given.

    `check` looks at the request and returns Granted, or raises HTTPException. It may be `async`; a plain function is
    faster, because the server can ask it itself. `scheme` documents what it looks at, for example
    `APIKeyHeader(name="X-API-Key")`.

    Put it where FastAPI takes dependencies, as in `APIRouter(dependencies=[Depends(guard)])`.
    """

    def __init__(self, scheme: SecurityBase, check: Callable[[HTTPConnection], Granted | Awaitable[Granted]]) -> None:
        self.model = scheme.model
        self.scheme_name = scheme.scheme_name
        self._check = check
        self.waits = iscoroutinefunction(check) or iscoroutinefunction(type(check).__call__)

    async def __call__(self, connection: HTTPConnection) -> Granted:
        """Return what is granted, or raise what `check` raises."""
        known: dict[Guard, Granted] = connection.scope.get(GRANTED, {})
        if self in known:
            return known[self]
        granted = self._check(connection)
        return proper(await granted if isawaitable(granted) else granted)

    def ask_at_once(self, connection: HTTPConnection) -> Granted:
        """Do the same for a guard that does not wait."""
        return proper(self._check(connection))


class Partition(SecurityBase):
    """The partition that a guard has granted: `Depends(Partition(guard))`; it guards a route as the guard does."""

    def __init__(self, guard: Guard) -> None:
        self.model = guard.model
        self.scheme_name = guard.scheme_name
        self.guard = guard

    async def __call__(self, connection: HTTPConnection) -> str:
        """Return its name, or raise what the guard raises."""
        return (await self.guard(connection)).partition


def proper(granted: object) -> Granted:
    """Return what a check returned.

    Raises TypeError for anything but Granted, which may have been meant as a refusal.
    """
    if not isinstance(granted, Granted):
        raise TypeError(f"A guard returned {granted!r}: return Granted(...), or raise HTTPException to refuse.")
    return granted
