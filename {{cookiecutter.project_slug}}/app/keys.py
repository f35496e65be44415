"""Make an API key: python -m app.keys --name billing --scopes read,write >> api-keys."""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from app.config import NAME
from app.highload.http.keys import KeysRefused, line_of, moment_of, new_key, scopes_of

KEY = """\
The key, which nobody can show again; its owner sends it as `Authorization: Bearer KEY`:

{key}

The line for the file that API_KEYS_FILE names; it holds no secret. The service reads the file when it starts, and after
`kill -HUP` of Gunicorn's first process. To withdraw the key, delete the line and do the same.

"""


def main() -> int:
    """Print a new key for a person, and the line for the file where `>>` takes it."""
    parser = argparse.ArgumentParser(prog="python -m app.keys", description="Make an API key.")
    parser.add_argument("--name", required=True, help="who will use it; two keys may have the same name")
    parser.add_argument("--scopes", default="read", type=checked(scopes_of), help="read (the default), write, or both")
    parser.add_argument("--expires", type=checked(moment_of), help="such as 2027-01-31T00:00:00Z; never by default")
    arguments = parser.parse_args()
    key = new_key(NAME)
    try:
        line = line_of(key, name=arguments.name, scopes=sorted(arguments.scopes), expires=arguments.expires)
    except KeysRefused as error:
        parser.error(f"{error}.")
    if arguments.expires is not None and arguments.expires <= datetime.now(UTC):
        parser.error("the key would have expired already.")
    sys.stderr.write(KEY.format(key=key))
    sys.stderr.flush()
    sys.stdout.write(f"{line}\n")
    return 0


def checked[T](read: Callable[[str], T]) -> Callable[[str], T]:
    """Return a type of argument that is read as in the file."""

    def argument(text: str) -> T:
        try:
            return read(text)
        except KeysRefused as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return argument


if __name__ == "__main__":
    sys.exit(main())
