"""The dead-letter queue from the command line: list, show, replay or purge what no worker could store."""

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

from app.broker import DEAD_LETTER_QUEUE, DEAD_LETTER_QUEUE_ARGUMENTS, QUEUE
from app.config import load_settings


@asynccontextmanager
async def open_queue(url: str) -> AsyncGenerator[tuple[AbstractChannel, AbstractQueue]]:
    """Open the dead-letter queue; what is not acknowledged returns to it at the end."""
    async with await connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        yield (
            channel,
            await channel.declare_queue(DEAD_LETTER_QUEUE, durable=True, arguments=DEAD_LETTER_QUEUE_ARGUMENTS),
        )


async def messages(queue: AbstractQueue) -> AsyncGenerator[AbstractIncomingMessage]:
    """Yield the messages that are in the queue now, each of them once."""
    for _ in range(queue.declaration_result.message_count or 0):
        message = await queue.get(fail=False)
        if message is None:
            return
        yield message


def reason_of(message: AbstractIncomingMessage) -> str:
    """Return why a message is here: the worker's reason, else the broker's."""
    if "x-reason" in message.headers:
        return str(message.headers["x-reason"])
    return "the broker gave it up: " + str(message.headers.get("x-first-death-reason", "unknown"))


def items_in(message: AbstractIncomingMessage) -> list[dict[str, Any]]:
    """Return the items of a message, or its text as if it were one, where nobody can find items in it."""
    try:
        items = json.loads(message.body)[0][0]
    except (ValueError, LookupError, TypeError):
        items = None
    if isinstance(items, list) and all(isinstance(item, dict) for item in items):
        return items
    return [{"body": message.body.decode(errors="replace")}]


def in_short(item: dict[str, Any], reason: str) -> str:
    """Return a line for a person."""
    return f"{item.get('id', 'unreadable')}  {item.get('name', item.get('body'))!r}  {reason}"


def in_full(item: dict[str, Any], reason: str) -> str:
    """Return a JSON object with everything that is known."""
    return json.dumps({**item, "reason": reason})


async def show(url: str, form: Callable[[dict[str, Any], str], str]) -> int:
    """Print a line for every dead item, and return how many messages there are."""
    count = 0
    async with open_queue(url) as (_, queue):
        async for message in messages(queue):
            count += 1
            for item in items_in(message):
                print(form(item, reason_of(message)))
    return count


async def replay(url: str) -> int:
    """Send every dead message to the workers again, and return how many there were."""
    count = 0
    async with open_queue(url) as (channel, queue):
        async for message in messages(queue):
            headers = {name: value for name, value in message.headers.items() if not name.startswith("x-")}
            again = Message(
                message.body,
                headers=headers,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                delivery_mode=message.delivery_mode,
                correlation_id=message.correlation_id,
            )
            await channel.default_exchange.publish(again, routing_key=QUEUE)
            await message.ack()
            count += 1
    return count


async def purge(url: str) -> int:
    """Drop every dead message for good, and return how many there were."""
    async with open_queue(url) as (_, queue):
        result = await queue.purge()
    return result.message_count or 0


ACTIONS: dict[str, Callable[[str], Coroutine[Any, Any, int]]] = {
    "list": partial(show, form=in_short),
    "show": partial(show, form=in_full),
    "replay": replay,
    "purge": purge,
}


def main() -> int:
    """Run one action and print what it did."""
    parser = argparse.ArgumentParser(prog="python -m app.dead_letters", description=__doc__)
    parser.add_argument("action", choices=list(ACTIONS))
    action: str = parser.parse_args().action
    url = load_settings().broker_url
    if url is None:
        print("BROKER_URL is not set: there is no dead-letter queue.", file=sys.stderr)
        return 1
    count = asyncio.run(ACTIONS[action](url))
    print(f"{action}: {count} messages", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
