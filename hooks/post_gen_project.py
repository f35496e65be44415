"""Remove the files of features that are off, make the secrets, and say what to do next."""

import json
import os
import re
import secrets
import shutil
import sys
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

FILES_OF_FEATURES = {
    "caching": [
        "app/highload/reads/cache.py",
        "tests/highload/test_cache.py",
        "tests/test_items_cache.py",
    ],
    "queued_writes": [
        "app/highload/writes/dead_letters.py",
        "app/highload/writes/publisher.py",
        "app/highload/writes/queue.py",
        "app/highload/writes/queued.py",
        "app/highload/writes/worker.py",
        "app/tasks.py",
        "tests/highload/test_delivery_limit.py",
        "tests/highload/test_publisher.py",
        "tests/highload/test_queue.py",
        "tests/highload/worker.py",
        "tests/queues.py",
        "tests/test_queue.py",
    ],
}

# The user inside the image; it owns what a container writes into the project unless .env names another one.
IMAGE_USER = 10001


def remove_files_of_features_that_are_off() -> None:
    """Leave no file behind that the chosen variant does not use."""
    for feature, paths in FILES_OF_FEATURES.items():
        if not ANSWERS[feature]:
            for path in paths:
                Path(path).unlink()


def write_secrets() -> None:
    """Write .env from .env.example with a random password wherever one is left empty, readable by its owner only.

    A project that is rendered again keeps its .env, because the data in its volumes belongs to the passwords there.
    """
    environment = Path(".env")
    if environment.exists():
        return
    text = re.sub(
        r"^(\w+_PASSWORD)=$",
        lambda match: f"{match[1]}={secrets.token_urlsafe(24)}",
        Path(".env.example").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    uid, gid = container_user()
    text = text.replace(f"CONTAINER_USER={IMAGE_USER}:{IMAGE_USER}", f"CONTAINER_USER={uid}:{gid}")
    environment.touch(mode=0o600, exist_ok=False)
    environment.write_text(text, encoding="utf-8", newline="\n")


def container_user() -> tuple[int, int]:
    """Return the user and group as which containers run, so that revisions they write belong to the developer."""
    if not hasattr(os, "getuid"):
        return IMAGE_USER, IMAGE_USER
    if os.getuid() == 0:
        shutil.chown("alembic/versions", IMAGE_USER, IMAGE_USER)
        return IMAGE_USER, IMAGE_USER
    return os.getuid(), os.getgid()


def main() -> int:
    """Finish the project."""
    remove_files_of_features_that_are_off()
    write_secrets()
    print(f"\nThe project is in {ANSWERS['project_slug']}. Next:\n\n    cd {ANSWERS['project_slug']}\n    make run\n")
    return 0


sys.exit(main())
