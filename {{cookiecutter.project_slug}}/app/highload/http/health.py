"""Health: /livez says that the process serves, /readyz that everything it needs answers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from app.highload.http.problems import NOT_READY, RETRY_AFTER, Problem, problem
from app.highload.schema import NotReady

logger = logging.getLogger(__name__)

# Seconds that a dependency has for its answer.
LIMIT = 1.0
LIVEZ = "/livez"
READYZ = "/readyz"


class Health(BaseModel):
    """The service answers."""

    status: Literal["ok"]


type Checks = Mapping[str, Callable[[], Awaitable[None]]]

router = APIRouter(tags=["health"])


@router.get(LIVEZ)
async def livez() -> Health:
    """Tell that the process serves requests."""
    return Health(status="ok")


@router.get(READYZ, response_model=Health, responses={503: {"model": Problem, "description": "It cannot do its work"}})
async def readyz(request: Request) -> Health | Response:
    """Tell that every check of the lifespan's `checks` succeeds within a second."""
    checks: Checks = request.state.checks
    outcomes = await asyncio.gather(
        *(asyncio.wait_for(check(), LIMIT) for check in checks.values()), return_exceptions=True
    )
    down = {name: outcome for name, outcome in zip(checks, outcomes, strict=True) if outcome is not None}
    if down:
        logger.warning("not ready: %r", down)
        return problem(NOT_READY, in_words(down), headers=RETRY_AFTER)
    return Health(status="ok")


def in_words(down: Mapping[str, object]) -> str:
    """Return which checks failed, each with its reason if that is meant for readers."""
    reasons = [f"{name}: {outcome}" for name, outcome in down.items() if isinstance(outcome, NotReady)]
    silent = [name for name, outcome in down.items() if not isinstance(outcome, NotReady)]
    if silent:
        reasons.insert(0, f"no answer from: {', '.join(silent)}.")
    return f"Not ready, {' '.join(reasons)}"
