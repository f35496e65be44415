"""Turns of those who go away at the wrong moment."""

import asyncio
from collections.abc import Callable
from typing import Any

from app.highload.turns import Lease, Turns
from tests.waiting import PATIENCE, settle


def nothing() -> None:
    """Do nothing."""


class Noted(Lease):
    """A lease without a connection, which notes what becomes of it; something happens while it is made as new."""

    def __init__(self, meanwhile: Callable[[], Any] = nothing) -> None:
        self.done: list[str] = []
        self._meanwhile = meanwhile

    async def renew(self) -> None:
        """Note it."""
        self.done.append("renewed")
        self._meanwhile()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Note it."""
        self.done.append("closed")


async def test_a_turn_that_came_to_who_is_going_away_is_passed_on() -> None:
    turns, lease = Turns(1), Noted()
    await turns.take(reads=True)
    leaving, staying = (asyncio.create_task(turns.take(reads=True)) for _ in range(2))
    await settle()
    await turns.give(lease)
    leaving.cancel()
    assert await asyncio.wait_for(staying, PATIENCE) is lease
    assert leaving.cancelled()


async def test_a_connection_goes_back_when_the_next_one_leaves_while_it_is_made_as_new() -> None:
    turns = Turns(1)
    await turns.take(reads=True)
    leaving, writing = (asyncio.create_task(turns.take(reads=reads)) for reads in (True, False))
    await settle()
    lease = Noted(leaving.cancel)
    await turns.give(lease)
    assert await asyncio.wait_for(writing, PATIENCE) is None
    assert lease.done == ["renewed", "closed"]


async def test_a_turn_that_nobody_waits_for_is_free() -> None:
    turns, lease = Turns(1), Noted()
    await turns.take(reads=True)
    await turns.give(lease)
    assert lease.done == ["closed"]
    assert await asyncio.wait_for(turns.take(reads=False), PATIENCE) is None
