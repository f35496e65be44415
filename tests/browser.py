"""A browser that looks at a page."""

import json
import os
import re
import shutil
import subprocess
import zlib
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# What a user prefers, as Chromium counts it.
DARK, LIGHT = 0, 1
NO_ORIGIN = "not an origin"


def find_browser() -> str | None:
    """Return where Chromium is, if it is there."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """Chromium without a window, and with this machine as its network; it has so many seconds for a page."""

    def __init__(self, program: str, place: Path, *, timeout: float) -> None:
        self._program = program
        self._place = place
        self._timeout = timeout

    def show(self, address: str, *options: str) -> tuple[str, list[str], list[str]]:
        """Show a page; return its document, the messages on its console, and the addresses that were asked for."""
        log = self._place / "network.json"
        done = subprocess.run(
            [
                self._program,
                "--headless",
                *(["--no-sandbox"] if os.geteuid() == 0 else []),
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--allow-file-access-from-files",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                f"--user-data-dir={self._place / 'profile'}",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--log-net-log={log}",
                *options,
                address,
            ],
            capture_output=True,
            text=True,
            timeout=self._timeout,
            check=True,
        )
        requests = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
        # The browser asks for things of its own; what a page asks for has an origin.
        asked = {request["url"] for request in requests if request.get("initiator", NO_ORIGIN) != NO_ORIGIN}
        return done.stdout, re.findall(r"CONSOLE.*", done.stderr), sorted(asked)


def top_left(picture: Path) -> tuple[int, ...]:
    """Return red, green and blue of the first pixel of a PNG, on which no filter has an effect."""
    data, position, compressed = picture.read_bytes(), 8, b""
    while position < len(data):
        length = int.from_bytes(data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            compressed += data[position + 8 : position + 8 + length]
        position += length + 12
    return tuple(zlib.decompress(compressed)[1:4])
