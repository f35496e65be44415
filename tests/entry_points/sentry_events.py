"""Print the transactions and errors that Sentry has seen."""

from collections import Counter
from typing import Any

import sentry_sdk

seen = Counter[str]()


def see(event: Any, _: Any) -> None:
    """Count an event instead of sending it."""
    seen[f"{event.get('type', 'error')} {event['transaction']}"] += 1


sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", traces_sample_rate=1.0, before_send=see, before_send_transaction=see)

from app.highload.reads.shared import shared  # noqa: E402
from app.main import app  # noqa: E402
from entry_points.reads import send_reads  # noqa: E402
from fastapi.testclient import TestClient  # noqa: E402


@app.get("/broken")
@shared
async def broken() -> None:
    """Fail."""
    raise LookupError


send_reads(app)
with TestClient(app, raise_server_exceptions=False) as client:
    print(client.get("/broken").status_code)
sentry_sdk.flush()
print(dict(seen))
