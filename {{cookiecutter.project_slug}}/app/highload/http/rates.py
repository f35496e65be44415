"""A bound on the requests of each client: a token bucket, in this process alone."""

import re
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from typing import NamedTuple, Self

SECONDS = {"s": 1, "min": 60, "h": 3600}
FORM = re.compile(r"([1-9]\d{0,8})/(s|min|h)", re.ASCII)
# Clients that are remembered, about 150 bytes each. Whoever has not asked for the longest is forgotten, and has all its
# tokens again.
MOST_CLIENTS = 65_536
# What somebody with an IPv6 address has of them.
PREFIX = 64


class Rate(NamedTuple):
    """So many requests in so many seconds."""

    requests: int
    seconds: int

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the rate of a text such as `100/s`, `6000/min` or `50000/h`.

        Raises ValueError.
        """
        match = FORM.fullmatch(text)
        if match is None:
            raise ValueError("must be a number of requests in a second, minute or hour, such as 100/s, 6000/min or 9/h")
        return cls(int(match[1]), SECONDS[match[2]])

    @classmethod
    def check(cls, text: str) -> str:
        """Return the text of a rate; raise ValueError for any other."""
        cls.of(text)
        return text


class Buckets:
    """A bucket of tokens for each client.

    It holds as many as the rate allows in its window, which a client may use at once, and fills again evenly. What is
    kept of a bucket is the moment at which it will be full (the generic cell rate algorithm): one number, and none for
    a full one.
    """

    def __init__(
        self, rate: Rate, *, most_clients: int = MOST_CLIENTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self._token = rate.seconds / rate.requests
        self._latest = rate.seconds - self._token
        self._most_clients = most_clients
        self._clock = clock
        # From the one that was used first to the one that was used last.
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        """Return how many clients are remembered."""
        return len(self._full_at)

    def take(self, client: str) -> float:
        """Take a token from the bucket of a client; where there is none, return the seconds until there is one, or 0.

        What is refused costs no token.
        """
        now = self._clock()
        full_at = self._full_at.get(client, now)
        # The sum of many tokens is not exact.
        wait = full_at - now - self._latest
        if wait > self._token * 1e-6:
            return wait
        self._full_at.pop(client, None)
        self._full_at[client] = max(full_at, now) + self._token
        if len(self._full_at) > self._most_clients:
            del self._full_at[next(iter(self._full_at))]
        return 0


def seconds_until(wait: float) -> int:
    """Return whole seconds for `Retry-After`."""
    return max(1, ceil(wait))


@lru_cache(maxsize=4096)
def client_of(host: str) -> str:
    """Return who stands for an address: of IPv6 its /64, because somebody who has one address there has them all.

    What is no address, as a proxy may send it, is one client.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((int(address), PREFIX), strict=False))
    return str(address)
