import runpy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app import config
from app.config import EMBEDDED_DATABASE_URL, ConfigurationError, Settings, load_settings
from app.highload.cpus import available_cpus
from tests.conftest import PROJECT

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
        ("PUBLIC_URL", "https://example.org/path"),
        ("ALLOWED_HOSTS", "https://example.org"),
        ("ROOT_PATH", "api/"),
        ("FORWARDED_ALLOW_IPS", "proxy"),
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


def test_gunicorn_gets_its_settings_from_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setenv("WEB_CONCURRENCY", "1")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.7, 10.1.0.0/16")
    assert runpy.run_path("gunicorn.conf.py")["forwarded_allow_ips"] == "10.0.0.7,10.1.0.0/16"


def test_settings_take_keywords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_POOL_SIZE", "7")
    values: dict[str, Any] = {"db_pool_size": 3}
    assert Settings(_env_file=None, **values).db_pool_size == 3


@pytest.mark.parametrize(
    ("variables", "hosts"),
    [
        ({}, ["*"]),
        ({"PUBLIC_URL": "https://example.org"}, ["*"]),
        ({"ALLOWED_HOSTS": "a.test, *.b.test"}, ["a.test", "*.b.test"]),
        (PRODUCTION, ["*"]),
        (PRODUCTION | {"PUBLIC_URL": "https://example.org:8443"}, ["example.org"]),
        (PRODUCTION | {"PUBLIC_URL": "https://example.org", "ALLOWED_HOSTS": "a.test"}, ["a.test"]),
        (PRODUCTION | {"PUBLIC_URL": "https://example.org", "ALLOWED_HOSTS": "*"}, ["*"]),
    ],
)
def test_production_answers_for_its_public_host(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], hosts: list[str]
) -> None:
    settings = load(monkeypatch, variables)
    assert settings.hosts == hosts
    said = [sentence for sentence in settings.warnings if "for any host" in sentence]
    assert len(said) == (1 if settings.production and hosts == ["*"] else 0)


def test_production_says_that_it_believes_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [*load(monkeypatch, PRODUCTION | {"ALLOWED_HOSTS": "a.test"}).warnings]
    said = [*load(monkeypatch, {"FORWARDED_ALLOW_IPS": "*"}).warnings]
    assert said == ["Any client may say who it is: set FORWARDED_ALLOW_IPS to the addresses of the proxies."]


SECRETS = [name for name, field in Settings.model_fields.items() if not field.repr]


def value_of(name: str) -> str:
    return PRODUCTION.get(name.upper(), "P@ss/w0rd#1")


def with_files(monkeypatch: pytest.MonkeyPatch, directory: Path, files: dict[str, str]) -> None:
    """Let secrets lie in a directory."""
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(Settings, "model_config", Settings.model_config | {"secrets_dir": directory})


def test_what_is_not_shown_is_a_secret() -> None:
    assert {name.removesuffix("_url").removesuffix("_password") for name in SECRETS} == {
        "database",
        # {% if cookiecutter.caching %}
        "redis",
        # {% endif %}
        # {% if cookiecutter.queued_writes %}
        "broker",
        # {% endif %}
    }


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_stands_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, end: str) -> None:
    monkeypatch.delenv(name.upper(), raising=False)
    values: dict[str, Any] = {name: value_of(name)}
    expected = getattr(Settings(_env_file=None, **values), name)
    file = tmp_path / "file"
    file.write_bytes((value_of(name) + end).encode())
    with monkeypatch.context() as patch:
        patch.setenv(f"{name.upper()}_FILE", str(file))
        assert getattr(load_settings(), name) == expected
    (tmp_path / ".env").write_text(f"{name.upper()}_FILE={file}\n", encoding="utf-8")
    assert getattr(load_settings(), name) == expected
    (tmp_path / ".env").unlink()
    with_files(monkeypatch, tmp_path / "secrets", {name: value_of(name) + end})
    assert getattr(load_settings(), name) == expected
    # It may be named where it lies.
    monkeypatch.setenv(f"{name.upper()}_FILE", str(tmp_path / "secrets" / name))
    assert getattr(load_settings(), name) == expected


def test_a_file_that_cannot_be_used_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, sentence in {
        "not-there": "DATABASE_PASSWORD_FILE names a file that is not there",
        "secret/secret": "DATABASE_PASSWORD_FILE names a file that is not there",
        "empty": "DATABASE_PASSWORD_FILE is an empty file",
        "binary": "DATABASE_PASSWORD_FILE cannot be read: it is not text in UTF-8",
        ".": "DATABASE_PASSWORD_FILE cannot be read: Is a directory",
    }.items():
        monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(tmp_path / path))
        with pytest.raises(ConfigurationError) as refused:
            load_settings()
        assert str(refused.value) == sentence
    monkeypatch.delenv("DATABASE_PASSWORD_FILE")
    with_files(monkeypatch, tmp_path / "secrets", {"database_password": ""})
    with pytest.raises(ConfigurationError, match=r"^the secret database_password is an empty file$"):
        load_settings()


def test_a_secret_is_set_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    (tmp_path / "file").write_text("secret", encoding="utf-8")
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(tmp_path / "file"))
    twice = "^DATABASE_PASSWORD is set more than once: keep one of DATABASE_PASSWORD and DATABASE_PASSWORD_FILE$"
    with pytest.raises(ConfigurationError, match=twice):
        load_settings()
    monkeypatch.delenv("DATABASE_PASSWORD_FILE")
    with_files(monkeypatch, tmp_path / "secrets", {"DATABASE_PASSWORD": "secret"})
    twice = "^DATABASE_PASSWORD is set more than once: keep one of DATABASE_PASSWORD and the secret database_password$"
    with pytest.raises(ConfigurationError, match=twice):
        load_settings()


def test_an_address_in_a_file_is_checked_and_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    (tmp_path / "file").write_text("postgres://u:top/secret@h/d", encoding="utf-8")
    monkeypatch.setenv("DATABASE_URL_FILE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL: must have the form") as refused:
        load_settings()
    assert "secret" not in str(refused.value)
