"""What the parts of the page are made of."""

from datetime import datetime
from html import escape

from loadtest.results import Measurement


def request_of(measurement: Measurement) -> str:
    """Return the method and path of a workload as code."""
    return f"<code>{escape(measurement.request)}</code>"


def time(when: datetime) -> str:
    """Return a time that people and programs read."""
    return f'<time datetime="{escape(when.isoformat(timespec="seconds"))}">{escape(moment(when))}</time>'


def moment(when: datetime) -> str:
    """Return a time to the minute, in UTC."""
    return f"{when:%Y-%m-%d, %H:%M} UTC"
