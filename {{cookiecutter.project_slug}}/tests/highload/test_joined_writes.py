"""The head and the body of an answer leave together, and nothing is overtaken."""

import asyncio
from typing import Any

from app.highload.http.joined_writes import LARGE, JoinedWrites


class Recorded:
    """A transport that notes what is asked of it."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def writelines(self, lines: list[bytes]) -> None:
        self.done.append(b"".join(lines))

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.done


def joined() -> tuple[JoinedWrites, list[Any]]:
    transport: Any = Recorded()
    return JoinedWrites(transport, asyncio.get_running_loop()), transport.done


async def test_a_head_and_its_body_are_one_write() -> None:
    writes, done = joined()
    writes.write(b"head ")
    assert done == []
    writes.write(b"body")
    assert done == [b"head body"]
    await asyncio.sleep(0)
    assert done == [b"head body"]


async def test_a_head_without_a_body_leaves_in_the_next_turn() -> None:
    writes, done = joined()
    writes.write(b"head")
    await asyncio.sleep(0)
    assert done == [b"head"]
    writes.write(b"a later part")
    await asyncio.sleep(0)
    assert done == [b"head", b"a later part"]


async def test_an_empty_body_lets_its_head_go() -> None:
    writes, done = joined()
    writes.write(b"")
    writes.write(b"head")
    writes.write(b"")
    assert done == [b"head"]


async def test_nothing_is_overtaken() -> None:
    writes, done = joined()
    writes.write(b"1")
    writes.write_whole(b"2", b"3")
    writes.write(b"4")
    writes.write(b"5" * LARGE)
    writes.write(b"6")
    assert not writes.is_closing()
    writes.close()
    assert done == [b"1", b"23", b"4" + b"5" * LARGE, b"6", "closed"]
    assert writes.is_closing()
    await asyncio.sleep(0)
    assert done[-1] == "closed"
