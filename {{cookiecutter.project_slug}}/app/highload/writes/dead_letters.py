"""A dead-letter queue from the command line: list, show, replay or purge what no worker could store."""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from aio_pika import Message, connect
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

from app.highload.writes.queue import DEAD_LETTER_ARGUMENTS, RowQueue


@asynccontextmanager
async def open_queue(url: str, queue: RowQueue) -> AsyncGenerator[tuple[AbstractChannel, AbstractQueue]]:
    """Open the dead-letter queue; what is not acknowledged returns to it at the end."""
    async with await connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        yield (
            channel,
            await channel.declare_queue(queue.dead_letters, durable=True, arguments=DEAD_LETTER_ARGUMENTS),
        )


async def messages(dead: AbstractQueue) -> AsyncGenerator[AbstractIncomingMessage]:
    """Yield the messages that are in the queue now, each of them once."""
    for _ in range(dead.declaration_result.message_count or 0):
        message = await dead.get(fail=False)
        if message is None:
            return
        yield message


def reason_of(message: AbstractIncomingMessage) -> str:
    """Return why a message is here: the worker's reason, else the broker's."""
    if "x-reason" in message.headers:
        return str(message.headers["x-reason"])
    return "the broker gave it up: " + str(message.headers.get("x-first-death-reason", "unknown"))


def code_of(message: AbstractIncomingMessage) -> str:
    """Return the same for a program: the worker's code, else `gave-up`, because the broker has none."""
    return str(message.headers.get("x-reason-code", "gave-up"))


def rows_in(message: AbstractIncomingMessage) -> list[dict[str, Any]]:
    """Return the rows of a message; its task and its text, as if they were one, where there are no rows in it."""
    try:
        rows = json.loads(json.loads(message.body)[0][0]["rows"])
    except (ValueError, LookupError, TypeError):
        rows = None
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        return rows
    return [{"task": message.headers.get("task"), "body": message.body.decode(errors="replace")}]


def in_short(row: dict[str, Any], reason: str, _: str) -> str:
    """Return a line for a person."""
    if "id" not in row:
        return f"{row.get('task') or 'unreadable'}  {row.get('body')!r}  {reason}"
    fields = [f"{name}={value!r}" for name, value in row.items() if name != "id" and value is not None]
    return f"{row['id']}  {', '.join(fields)}  {reason}"


def in_full(row: dict[str, Any], reason: str, code: str) -> str:
    """Return a JSON object with everything that is known."""
    return json.dumps({**row, "reason": reason, "code": code})


async def show(url: str, queue: RowQueue, form: Callable[[dict[str, Any], str, str], str]) -> int:
    """Print a line for every dead row, and return how many messages there are."""
    count = 0
    async with open_queue(url, queue) as (_, dead):
        async for message in messages(dead):
            count += 1
            for row in rows_in(message):
                print(form(row, reason_of(message), code_of(message)))
    return count


async def replay(url: str, queue: RowQueue) -> int:
    """Send every dead message to the workers again, and return how many there were."""
    count = 0
    async with open_queue(url, queue) as (channel, dead):
        async for message in messages(dead):
            headers = {name: value for name, value in message.headers.items() if not name.startswith("x-")}
            again = Message(
                message.body,
                headers=headers,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                delivery_mode=message.delivery_mode,
                correlation_id=message.correlation_id,
            )
            await channel.default_exchange.publish(again, routing_key=queue.name)
            await message.ack()
            count += 1
    return count


async def purge(url: str, queue: RowQueue) -> int:
    """Drop every dead message for good, and return how many there were."""
    async with open_queue(url, queue) as (_, dead):
        result = await dead.purge()
    return result.message_count or 0


ACTIONS: dict[str, Callable[[str, RowQueue], Coroutine[Any, Any, int]]] = {
    "list": partial(show, form=in_short),
    "show": partial(show, form=in_full),
    "replay": replay,
    "purge": purge,
}


def main(url: str | None, queue: RowQueue) -> int:
    """Run the action that the command line names on a queue, print what it did, and return the exit status."""
    parser = argparse.ArgumentParser(description="The dead-letter queue: what no worker could store.")
    parser.add_argument("action", choices=list(ACTIONS))
    action: str = parser.parse_args().action
    if url is None:
        print("BROKER_URL is not set: there is no dead-letter queue.", file=sys.stderr)
        return 1
    count = asyncio.run(ACTIONS[action](url, queue))
    print(f"{action}: {count} messages", file=sys.stderr)
    return 0
