"""The resource that the load test and the drills write and read: name another one here to try that instead."""

import json

PATH = "/items"
TABLE = "items"
# The part of a list that holds its rows.
ROWS = "items"
# The column that tells rows apart: a client may choose it.
NAME = "name"


def body(name: str = "x", **fields: str) -> str:
    """Return the JSON of a new row."""
    return json.dumps({NAME: name, **fields}, separators=(",", ":"))
