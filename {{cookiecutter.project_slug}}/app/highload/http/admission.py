"""A bound on the requests in progress: what a worker cannot serve soon, it refuses at once."""

import asyncio
from collections.abc import Collection
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.highload.http.problems import OVERLOADED, RETRY_AFTER, TOO_MANY_WAIT, ProblemError, overloaded
from app.highload.http.requests import Requests
from app.highload.lean import LEFT
from app.highload.metrics.refusals import OVERLOAD

# In the scope of a request: when the server has begun with it, where it did so before the application.
BEGUN = "highload.begun"


class Admission:
    """ASGI middleware that lets at most `limit` requests in and answers 503 to the next, with `Retry-After`.

    It belongs outside of everything else, so that a refusal costs next to nothing. Requests count, not connections:
    those that are idle take nothing from anybody, and neither does a request while it waits for its client, to send
    the rest of the body or to read. Where its place is taken meanwhile, it is refused like the others.

    The paths in `always` are let in however many requests are inside, and so is a request that the server has begun to
    serve the lean way.

    The server asks it, too, and counts here what it answers itself. The answers of the application are counted in
    `requests`.
    """

    def __init__(self, app: ASGIApp, limit: int, *, always: Collection[str], requests: Requests | None = None) -> None:
        self._app = app
        self._limit = limit
        self.always = always
        self.requests = requests or Requests()
        self._inside = 0
        self._expected = 0
        self._refusal = overloaded()

    @property
    def full(self) -> bool:
        """Whether as many requests are inside as may be."""
        return self._inside >= self._limit

    @property
    def full_soon(self) -> bool:
        """Whether it is full, or will be when those that are expected have come in."""
        return self._inside + self._expected >= self._limit

    @property
    def inside(self) -> int:
        """How many requests have a place."""
        return self._inside

    @property
    def limit(self) -> int:
        """How many places there are."""
        return self._limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        always = scope["path"] in self.always
        if self.full and not always and LEFT not in scope:
            self.requests.refuse(scope["method"], self._refusal.status_code)
            await self._refusal(scope, receive, send)
            return
        self.enter()
        try:
            await self._app(scope, *self._outside(always, receive, send if always else self._counted(scope, send)))
        finally:
            self.leave()

    def _counted(self, scope: Scope, send: Send) -> Send:
        """Return what counts the request before the last message of its answer is sent."""
        begun: float = scope.get(BEGUN) or perf_counter()
        status = 0

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status and not message.get("more_body", False):
                self.requests.observe(scope, status, perf_counter() - begun)
                status = 0
            await send(message)

        return send_counted

    def _outside(self, always: bool, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """Return what waits for the client without a place."""
        whole = False

        async def receive_outside() -> Message:
            nonlocal whole
            # What comes behind a body is that the client goes away, which the application waits for while it works.
            if whole:
                return await receive()
            self.leave()
            try:
                message = await receive()
            finally:
                self.enter()
            whole = not message.get("more_body", False)
            if self._inside > self._limit and not always:
                OVERLOAD.add()
                raise ProblemError(OVERLOADED, TOO_MANY_WAIT, RETRY_AFTER)
            return message

        async def send_outside(message: Message) -> None:
            self.leave()
            try:
                await send(message)
            finally:
                self.enter()

        return receive_outside, send_outside

    def expect(self) -> None:
        """Announce a request whose task is made and begins after what is ready in the event loop.

        The server reads from many connections before it runs a task, and sees from this that it reads too much.
        """
        if self._expected == 0:
            asyncio.get_running_loop().call_soon(self._forget)
        self._expected += 1

    def _forget(self) -> None:
        self._expected = 0

    def enter(self) -> None:
        """Count a request that begins."""
        self._inside += 1

    def leave(self) -> None:
        """Count it no more, because it has ended."""
        self._inside -= 1
