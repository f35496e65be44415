"""API keys: a file of digests, and who is behind a key (RFC 6750).

A key is random, so a plain digest of it tells nothing, and what is compared is that digest: how long it takes says
nothing about the key.
"""

import re
import secrets
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import NamedTuple

READ = "read"
WRITE = "write"
SCOPES = (READ, WRITE)
# Bytes that nobody guesses.
RANDOM_BYTES = 32
# Spellings of verified keys that are remembered.
MOST_REMEMBERED = 4096
# Bytes of one.
LONGEST_REMEMBERED = 256

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)
# The scheme is of any case (RFC 9110, section 11.1), the rest is `b64token` (RFC 6750, section 2.1).
CREDENTIALS = re.compile(rb"(?i:bearer) +([\w.~+/-]+=*)", re.ASCII)

FORM = "write `name sha256 scopes [expires]`, as python -m app.keys prints it"


class KeysRefused(Exception):
    """A file of keys cannot be used; the message is a sentence that says where and why, and shows nothing of it."""


class ApiKey(NamedTuple):
    """Who is behind a key, what that may do, and until when (seconds since the epoch)."""

    name: str
    scopes: frozenset[str]
    expires: float = inf


class ApiKeys:
    """The keys that there are, by their digests."""

    def __init__(self, keys: Mapping[bytes, ApiKey]) -> None:
        self._keys = keys
        self._remembered: dict[bytes, ApiKey] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._keys)

    @property
    def expired(self) -> int:
        """How many of them are of no use any more."""
        now = time.time()
        return sum(key.expires <= now for key in self._keys.values())

    def find(self, credentials: bytes) -> ApiKey | None:
        """Return the key, which may have expired, of the value of an Authorization field, if it is one."""
        known = self._remembered.get(credentials)
        if known is not None:
            return known
        match = CREDENTIALS.fullmatch(credentials.strip(b" \t"))
        key = self._keys.get(sha256(match[1]).digest()) if match else None
        # Nobody without a key gets in here.
        if key is not None and len(credentials) <= LONGEST_REMEMBERED:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[credentials] = key
        return key


def read_keys(path: Path) -> ApiKeys:
    """Read a file of keys: a line for each, words with space between them, and comments behind `#`.

    The words are a name, the SHA-256 of the key in hexadecimal digits, scopes with commas between them, and the moment
    at which it expires, as in RFC 3339, if it does. A client that changes its key has two lines of one name meanwhile.

    Raises KeysRefused.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise KeysRefused(f"{path} cannot be read ({error.strerror}): name a file of keys, or none") from None
    except UnicodeDecodeError:
        raise KeysRefused(f"{path} is no text: {FORM}") from None
    keys: dict[bytes, ApiKey] = {}
    # Not `splitlines`: an editor counts these.
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            digest, key = key_of(words)
            if digest in keys:
                raise KeysRefused("this key is in a line above")  # noqa: TRY301 - as what is raised there
        except KeysRefused as error:
            raise KeysRefused(f"line {number} of {path}: {error}") from None
        keys[digest] = key
    return ApiKeys(keys)


def key_of(words: list[str]) -> tuple[bytes, ApiKey]:
    """Return the digest and the key of a line.

    Raises KeysRefused.
    """
    match words:
        case [name, digest, scopes]:
            expires = inf
        case [name, digest, scopes, moment]:
            expires = moment_of(moment).timestamp()
        case _:
            raise KeysRefused(FORM)
    if not NAME.fullmatch(name):
        raise KeysRefused("the name has up to 64 letters, digits, dots, hyphens and underscores")
    if not DIGEST.fullmatch(digest):
        raise KeysRefused("the second word is no SHA-256 in 64 hexadecimal digits; the key itself does not belong here")
    return bytes.fromhex(digest), ApiKey(name, scopes_of(scopes), expires)


def scopes_of(text: str) -> frozenset[str]:
    """Return the scopes of `read`, `write` or `read,write`.

    Raises KeysRefused.
    """
    scopes = text.split(",")
    if not set(scopes) <= set(SCOPES) or len(set(scopes)) < len(scopes):
        raise KeysRefused("the scopes are read, write, or read,write")
    return frozenset(scopes)


def moment_of(text: str) -> datetime:
    """Return a moment in the form of RFC 3339.

    Raises KeysRefused.
    """
    try:
        if MOMENT.fullmatch(text):
            return datetime.fromisoformat(text)
    except ValueError:
        pass
    raise KeysRefused("the key expires at a moment with its time zone, such as 2027-01-31T00:00:00Z")


def new_key(prefix: str) -> str:
    """Return a new key; the prefix tells people and scanners of secrets what it is for."""
    return f"{re.sub(r'\W', '_', prefix)}_{secrets.token_hex(RANDOM_BYTES)}"


def line_of(key: str, *, name: str, scopes: Collection[str], expires: datetime | None = None) -> str:
    """Return the line of a key for the file.

    Raises KeysRefused for what `read_keys` would refuse.
    """
    words = [name, sha256(key.encode()).hexdigest(), ",".join(scopes)]
    if expires is not None:
        words.append(expires.isoformat().replace("+00:00", "Z"))
    key_of(words)
    return " ".join(words)
