"""Which requests are traced."""

import random
import re
from collections.abc import Collection

from starlette.types import Scope

# W3C Trace Context, section 3.2: the last bit says whether the caller is sampled.
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]([0-9a-f])(?:-|$)")
SAMPLED = frozenset(b"13579bdf")


class Sampling:
    """Decides which requests FastAPI's telemetry traces; one that it does not trace costs next to nothing.

    It traces those that the client traces and, of those of which the client says nothing, a `share` between 0 and 1.
    It traces none to a path in `never`.
    """

    def __init__(self, share: float, *, never: Collection[str]) -> None:
        self._share = share
        self._never = never

    def leaves_out(self, scope: Scope) -> bool:
        """Tell whether a request is not traced."""
        if scope["path"].removeprefix(scope.get("root_path", "")) in self._never:
            return True
        by_client = traced_by_client(scope)
        # Nobody gains from a guess.
        return random.random() >= self._share if by_client is None else not by_client  # noqa: S311


def traced_by_client(scope: Scope) -> bool | None:
    """Return whether the client says that it traces a request, or None where it says nothing."""
    for name, value in scope["headers"]:
        if name == b"traceparent" and (match := TRACEPARENT.match(value)):
            return match[1][0] in SAMPLED
    return None
