"""What is counted of refused requests."""

from app.highload.metrics.instruments import Counter, counter


def refusals(reason: str) -> Counter:
    """Return the counter of the requests that are refused for a reason."""
    return counter("highload_refusals_total", "Requests that were refused, by reason.", reason=reason)


# LIMIT_CONCURRENCY, and MAX_WAITING.
OVERLOAD, WAITING = refusals("overload"), refusals("waiting")
