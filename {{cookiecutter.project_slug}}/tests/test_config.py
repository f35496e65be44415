from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app import config
from app.config import EMBEDDED_DATABASE_URL, ConfigurationError, Settings, load_settings
from app.highload.cpus import available_cpus

PRODUCTION = {
    "ENVIRONMENT": "production",
    "DATABASE_URL": "postgresql://postgres:secret@db/db",
    # {% if cookiecutter.caching %}
    "REDIS_URL": "redis://redis/0",
    # {% endif %}
    # {% if cookiecutter.queued_writes %}
    "BROKER_URL": "amqp://rabbitmq/",
    # {% endif %}
}


@pytest.fixture(autouse=True)
def _no_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_production_starts_with_every_part_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, PRODUCTION).production


@pytest.mark.parametrize("missing", [name for name in PRODUCTION if name != "ENVIRONMENT"])
def test_production_refuses_an_embedded_part(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{missing} must name"):
        load(monkeypatch, PRODUCTION | {missing: ""})


def test_nothing_needs_to_be_set_for_development(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert load(monkeypatch, {}).embedded_database


@pytest.mark.parametrize("name", [name for name in PRODUCTION if name != "ENVIRONMENT"])
def test_no_message_shows_a_password(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert "secret" not in repr(load(monkeypatch, {"DATABASE_URL": PRODUCTION["DATABASE_URL"]}))
    scheme = PRODUCTION[name].partition("://")[0]
    with pytest.raises(ConfigurationError, match=f"^{name}: must have the form {scheme}://user:password@") as refused:
        load(monkeypatch, {name: f"{scheme}://user:top/secret@host/1"})
    assert "secret" not in str(refused.value)
    with pytest.raises(ValidationError) as invalid:
        Settings(_env_file=None)
    assert "secret" not in str(invalid.value)


@pytest.mark.parametrize("name", [name for name in PRODUCTION if name != "ENVIRONMENT"])
@pytest.mark.parametrize("kept", ["variable", "file"])
def test_a_password_of_any_characters_is_set_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, kept: str
) -> None:
    url, password = name.lower(), name.lower().replace("_url", "_password")
    scheme = PRODUCTION[name].partition("://")[0]
    if kept == "variable":
        monkeypatch.setenv(password.upper(), "P@ss/w0rd#1")
    else:
        (tmp_path / password).write_text("P@ss/w0rd#1\n", encoding="utf-8")
    for written, read in (
        ("user@host/1", "user:P%40ss%2Fw0rd%231@host/1"),
        ("user:other@host/1", "user:other@host/1"),
        ("host/1", "host/1"),
    ):
        monkeypatch.setenv(name, f"{scheme}://{written}")
        settings = Settings(_secrets_dir=tmp_path)
        assert getattr(settings, url).partition("://")[2] == read
        assert "P@ss" not in repr(settings)


def test_the_connection_budget_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"20 API workers x 5 .*DB_MAX_CONNECTIONS is 100: lower WEB_CONC"):
        load(monkeypatch, PRODUCTION | {"WEB_CONCURRENCY": "20"})
    assert load(monkeypatch, PRODUCTION | {"WEB_CONCURRENCY": "20", "DB_MAX_CONNECTIONS": "200"})


def test_the_connection_budget_counts_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"API_REPLICAS": "2", "WEB_CONCURRENCY": "4", "DB_POOL_SIZE": "5", "DB_RESERVED_CONNECTIONS": "3"}
    needed = 2 * 4 * 5 + 3
    # {% if cookiecutter.queued_writes %}
    settings |= {"WORKER_REPLICAS": "3", "WORKER_CONCURRENCY": "7"}
    needed += 3 * 7
    # {% endif %}
    assert load(monkeypatch, PRODUCTION | settings | {"DB_MAX_CONNECTIONS": str(needed)})
    with pytest.raises(ConfigurationError, match=f" = {needed} database connections"):
        load(monkeypatch, PRODUCTION | settings | {"DB_MAX_CONNECTIONS": str(needed - 1)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", "many"),
        ("DB_TIMEOUT", "-1"),
        ("LOG_LEVEL", "x"),
        ("PUBLIC_URL", "example.org"),
        ("PUBLIC_URL", "https://example.org/items"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: "):
        load(monkeypatch, {name: value})


def test_auto_means_the_cpus_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(monkeypatch, {"WEB_CONCURRENCY": "auto"}).web_concurrency == available_cpus()
    monkeypatch.delenv("WEB_CONCURRENCY")
    assert load(monkeypatch, {}).web_concurrency == available_cpus()


@pytest.mark.parametrize("cpus", [1, 2, 16, 17, 32, 64, 65, 96, 1000])
@pytest.mark.parametrize(
    "settings",
    [
        {"DATABASE_URL": EMBEDDED_DATABASE_URL},
        {},
        {"DB_MAX_CONNECTIONS": "1000"},
        {"DB_POOL_SIZE": "1", "API_REPLICAS": "3"},
        {"DB_POOL_SIZE": "40"},
        {"DB_RESERVED_CONNECTIONS": "30"},
        # {% if cookiecutter.queued_writes %}
        {"WORKER_REPLICAS": "4", "WORKER_CONCURRENCY": "9"},
        # {% endif %}
    ],
)
def test_auto_keeps_every_bound_on_any_machine(
    monkeypatch: pytest.MonkeyPatch, cpus: int, settings: dict[str, str]
) -> None:
    monkeypatch.setattr(config, "available_cpus", lambda: cpus)
    variables = {"DATABASE_URL": PRODUCTION["DATABASE_URL"], **settings}
    auto = load(monkeypatch, variables | {"WEB_CONCURRENCY": "auto"}).web_concurrency
    assert 1 <= auto <= min(cpus, 64)
    if auto < cpus:
        with pytest.raises(ConfigurationError):
            load(monkeypatch, variables | {"WEB_CONCURRENCY": str(auto + 1)})


def test_auto_says_once_that_it_takes_fewer_workers_than_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(config, "available_cpus", lambda: 96)
    monkeypatch.setattr(config.logger, "warning", said.append)
    config.say_once.cache_clear()
    for _ in range(2):
        load(monkeypatch, {"DATABASE_URL": EMBEDDED_DATABASE_URL, "WEB_CONCURRENCY": "auto"})
    sentence = (
        "WEB_CONCURRENCY=auto takes 64 API workers for 96 CPUs: never more than 64, nor than DB_MAX_CONNECTIONS allows"
    )
    assert said == [sentence]


def test_auto_hides_no_other_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"^DB_POOL_SIZE: [^;]*$"):
        load(monkeypatch, PRODUCTION | {"DB_POOL_SIZE": "0", "WEB_CONCURRENCY": "auto"})
    monkeypatch.setenv("DB_POOL_SIZE", "200")
    with pytest.raises(ConfigurationError, match="1 API workers x 200 "):
        load(monkeypatch, PRODUCTION | {"WEB_CONCURRENCY": "auto"})


def test_settings_take_keywords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_POOL_SIZE", "7")
    values: dict[str, Any] = {"db_pool_size": 3}
    assert Settings(_env_file=None, **values).db_pool_size == 3
