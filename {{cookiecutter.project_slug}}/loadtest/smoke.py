"""Ask a running service whether it is ready, and let an item live there: python -m loadtest.smoke URL."""

import argparse
import sys
import time
from collections.abc import Callable

import httpx2

from loadtest.resource import PATH, ROWS
from loadtest.service import JSON, NEW_ITEM, authorization

# Long enough for a queue that other writes fill.
PATIENCE = 60


class WrongAnswer(Exception):
    """The service does not answer as it should; the message says how, in one sentence."""


def smoke(client: httpx2.Client, patience: float = PATIENCE) -> None:
    """Create an item, read it by itself and in the list within some seconds, and delete it.

    Raises WrongAnswer, and httpx2.TransportError where nothing answers.
    """
    expect(client.get("/readyz"), 200)
    created = expect(client.post(PATH, content=NEW_ITEM, headers=JSON), 201, 202)
    location, key = created.headers["location"], created.json()["id"]
    deadline = time.monotonic() + patience
    # A queued item is stored a moment later.
    found = eventually(lambda: client.get(location), lambda answer: answer.is_success, deadline)
    if expect(found, 200).json()["id"] != key:
        raise WrongAnswer(f"GET {location} answers another item: {found.text}")
    listed = eventually(lambda: expect(client.get(PATH), 200), lambda answer: key in keys(answer), deadline)
    if key not in keys(listed):
        raise WrongAnswer(f"GET {PATH} does not list {location}, which GET finds.")
    expect(client.delete(location), 204)
    expect(client.get(location), 404)


def eventually(
    ask: Callable[[], httpx2.Response], right: Callable[[httpx2.Response], bool], deadline: float
) -> httpx2.Response:
    """Return the first answer that is right, or the last one."""
    while not right(answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def keys(listed: httpx2.Response) -> list[str]:
    """Return the ids of the rows in a list."""
    return [row["id"] for row in listed.json()[ROWS]]


def expect(response: httpx2.Response, *statuses: int) -> httpx2.Response:
    """Return a response that has one of these statuses."""
    if response.status_code not in statuses:
        request = f"{response.request.method} {response.request.url}"
        expected = " or ".join(map(str, statuses))
        raise WrongAnswer(f"{request} answers {response.status_code} instead of {expected}: {response.text}")
    return response


def main() -> int:
    """Return 0 when every answer was right, and print a sentence."""
    parser = argparse.ArgumentParser(prog="make smoke", description="Ask a running service in a few requests.")
    parser.add_argument("url", help="where the service answers")
    url: str = parser.parse_args().url
    try:
        # No proxy from the environment stands between this machine and its containers.
        with httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False, headers=authorization()) as client:
            smoke(client)
    except WrongAnswer as error:
        print(error, file=sys.stderr)
        return 1
    except httpx2.TransportError:
        print(f"Nothing answers at {url}: start the service, or say where it is, `make smoke URL=...`", file=sys.stderr)
        return 1
    print(f"{url} is ready: an item was created, read, listed and deleted.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
