"""Which requests are traced."""

import random
from collections.abc import Collection

from starlette.types import Scope

from app.highload.tracing.spans import caller_in

# In a scope: what was decided.
SAMPLED = "app.highload.sampled"


class Sampling:
    """Decides once for each request whether it is traced.

    One with a `traceparent` (W3C Trace Context) is traced when that says so, and of the others a `share` between 0
    and 1. Those to a path in `never` are not. A request that is not traced has no span and costs next to nothing.
    """

    def __init__(self, share: float, *, never: Collection[str]) -> None:
        self._share = share
        self._never = never

    def __call__(self, scope: Scope) -> bool:
        """Tell whether a request is traced."""
        sampled: bool | None = scope.get(SAMPLED)
        if sampled is None:
            sampled = scope[SAMPLED] = self._decide(scope)
        return sampled

    def leaves_out(self, scope: Scope) -> bool:
        """Tell whether FastAPI makes no span for a request."""
        return not self(scope)

    def _decide(self, scope: Scope) -> bool:
        if scope["path"] in self._never:
            return False
        for name, value in scope["headers"]:
            if name == b"traceparent":
                caller = caller_in(value.decode("latin-1"))
                if caller.is_valid:
                    return caller.trace_flags.sampled
        return random.random() < self._share  # noqa: S311 - nobody gains from a guess
