"""The requests of the other programs here."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi.testclient import TestClient

READS = 40


def send_reads(app: Any) -> None:
    """Read the list many times at once."""
    with TestClient(app) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.get("/items"), range(READS)))
    assert {answer.status_code for answer in answers} == {200}
    # Else nothing was shared, and nothing is shown.
    assert {answer.headers["x-cache"] for answer in answers} == {"miss", "shared"}
