"""Settings from the environment and from `.env`, checked before anything starts."""

import functools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from app.highload import addresses, logs, outside
from app.highload.cpus import available_cpus
from app.highload.http.keys import ApiKeys, KeysRefused, read_keys
from app.highload.http.rates import Rate
from app.highload.secret_files import SecretFiles

# What this service calls itself: in its database, its cache and its queues, which it may share with other services.
NAME = "{{ cookiecutter.project_slug }}"
FOR_GUNICORN = {
    "environment",
    "web_concurrency",
    "graceful_timeout",
    "client_timeout",
    "log_level",
    "log_format",
    "forwarded_allow_ips",
}
# Orchestrators put files here whose names are those of settings.
SECRETS = Path("/run/secrets")
EMBEDDED_DATABASE_URL = "sqlite+aiosqlite:///items.db"
MOST_WORKERS = 64

logger = logging.getLogger(__name__)
# Settings are read before it is known how to log. What they say then, each worker says once more.
logger.addHandler(logging.NullHandler())


class ConfigurationError(Exception):
    """The settings do not allow a start; the message says what to change."""


def worker_count(value: object, info: ValidationInfo) -> object:
    """Replace `auto` by a worker for each CPU that this process may use, as far as they all get their connections."""
    if value != "auto":
        return value
    settings, most = info.data, MOST_WORKERS
    try:
        if not addresses.is_sqlite(settings["database_url"]):
            connections = settings["db_max_connections"] - settings["db_reserved_connections"]
            # {% if cookiecutter.queued_writes %}
            connections -= settings["worker_replicas"] * settings["worker_concurrency"]
            # {% endif %}
            most = min(most, connections // (settings["api_replicas"] * settings["db_pool_size"]))
    except KeyError:
        # Another setting is refused, and only that is told.
        return 1
    cpus = available_cpus()
    if most < cpus:
        taken = f"WEB_CONCURRENCY=auto takes {max(1, most)} API workers for {cpus} CPUs"
        say_once(f"{taken}: never more than {MOST_WORKERS}, nor than DB_MAX_CONNECTIONS allows")
    return max(1, min(cpus, most))


@functools.cache
def say_once(sentence: str) -> None:
    """Log a sentence once in a process."""
    logger.warning(sentence)


def log_format_of(settings: dict[str, Any]) -> logs.Form:
    """Return the format that is right for an environment: programs read the log of production."""
    return "json" if settings.get("environment") == "production" else "text"


WorkerCount = Annotated[int, BeforeValidator(worker_count), Field(ge=1, le=MOST_WORKERS)]
# What shows settings must not show these, and each may stand in a file, which a variable such as
# DATABASE_PASSWORD_FILE names.
Password = Annotated[str | None, Field(repr=False)]
DatabaseUrl = Annotated[str, AfterValidator(addresses.database_url), Field(repr=False)]
RateLimit = Annotated[str, AfterValidator(Rate.check)]
# {% if cookiecutter.caching %}
RedisUrl = Annotated[Annotated[str, AfterValidator(addresses.redis_url)] | None, Field(repr=False)]
# {% endif %}
# {% if cookiecutter.queued_writes %}
BrokerUrl = Annotated[Annotated[str, AfterValidator(addresses.broker_url)] | None, Field(repr=False)]
# {% endif %}


class Settings(BaseSettings):
    """What can be set; every name is an environment variable in capitals."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    environment: Literal["development", "production"] = "development"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: logs.Form = Field(default_factory=log_format_of)
    public_url: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+$")] = "http://localhost:8000"
    root_path: Annotated[str, AfterValidator(outside.root_path)] = ""
    allowed_hosts: Annotated[str, AfterValidator(outside.allowed_hosts)] = ""
    forwarded_allow_ips: Annotated[str, AfterValidator(outside.trusted_proxies)] = "127.0.0.1,::1"

    api_keys_file: Path | None = None
    rate_limit: RateLimit | None = None

    api_replicas: PositiveInt = 1
    limit_concurrency: PositiveInt = 1000
    graceful_timeout: PositiveInt = 30
    client_timeout: PositiveFloat = 10.0
    max_body_bytes: PositiveInt = 65_536
    max_waiting: PositiveInt = 1000

    database_password: Password = None
    database_url: DatabaseUrl = EMBEDDED_DATABASE_URL
    db_pool_size: PositiveInt = 5
    db_max_connections: PositiveInt = 100
    db_reserved_connections: int = Field(default=10, ge=0)
    # A request may wait for one trip and travel on the next, and both must fit into two seconds.
    db_timeout: PositiveFloat = 0.9
    # {% if cookiecutter.caching %}

    redis_password: Password = None
    redis_url: RedisUrl = None
    cache_ttl: PositiveInt = 60
    cache_timeout: PositiveFloat = 0.1
    # {% endif %}
    # {% if cookiecutter.queued_writes %}

    broker_password: Password = None
    broker_url: BrokerUrl = None
    broker_deadline: PositiveFloat = 1.0
    worker_concurrency: PositiveInt = 2
    worker_replicas: PositiveInt = 3
    metrics_port: int = Field(default=9100, ge=0, le=65_535)
    # {% endif %}
    # {% if cookiecutter.observability %}

    otel_exporter_otlp_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+\S*$")] | None = None
    otel_exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    otel_traces_sampler: Literal["parentbased_traceidratio"] = "parentbased_traceidratio"
    otel_traces_sampler_arg: float = Field(default=0.01, ge=0, le=1)
    # {% endif %}

    # Below what `auto` depends on.
    web_concurrency: WorkerCount = "auto"  # type: ignore[assignment]

    @field_validator(
        "database_url",
        # {% if cookiecutter.caching %}
        "redis_url",
        # {% endif %}
        # {% if cookiecutter.queued_writes %}
        "broker_url",
        # {% endif %}
    )
    @classmethod
    def add_password(cls, url: str | None, info: ValidationInfo) -> str | None:
        """Put the password that is set apart into an address that names a user and has none."""
        password = info.data.get(f"{str(info.field_name).removesuffix('_url')}_password")
        return addresses.with_password(url, password) if url else url

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: Any,
        dotenv_settings: Any,
        file_secret_settings: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read secrets from files, too, and refuse those that are set twice."""
        variables = {**dotenv_settings.env_vars, **env_settings.env_vars}
        files = SecretFiles(settings_cls, variables, file_secret_settings.secrets_dir)
        return init_settings, env_settings, dotenv_settings, files

    @property
    def hosts(self) -> list[str]:
        """The hosts that a request may name."""
        if self.allowed_hosts:
            return self.allowed_hosts.split(",")
        if self.production and "public_url" in self.model_fields_set:
            return [outside.host_of(self.public_url)]
        return [outside.ANY]

    @property
    def warnings(self) -> Iterator[str]:
        """What production allows and need not."""
        if self.production and outside.ANY in self.hosts:
            yield "The service answers for any host: set ALLOWED_HOSTS, or PUBLIC_URL."
        if self.production and self.forwarded_allow_ips == outside.ANY:
            yield "Any client may say who it is: set FORWARDED_ALLOW_IPS to the addresses of the proxies."

    @property
    def production(self) -> bool:
        """Whether embedded parts are refused."""
        return self.environment == "production"

    @property
    def embedded_database(self) -> bool:
        """Whether the database is a SQLite file."""
        return addresses.is_sqlite(self.database_url)

    @property
    def rate(self) -> Rate | None:
        """The most requests of a client."""
        return Rate.of(self.rate_limit) if self.rate_limit else None

    def read_api_keys(self) -> ApiKeys | None:
        """Return the API keys that there are now, or None where everybody may do everything.

        Raises ConfigurationError with a sentence about a file that cannot be used.
        """
        try:
            return read_keys(self.api_keys_file) if self.api_keys_file else None
        except KeysRefused as error:
            raise ConfigurationError(f"API_KEYS_FILE: {error}") from None

    @property
    def connection_budget(self) -> tuple[int, int]:
        """The connections that all processes together may need, and those that the database allows."""
        if self.embedded_database:
            return 0, 0
        planned = self.api_replicas * self.web_concurrency * self.db_pool_size + self.db_reserved_connections
        # {% if cookiecutter.queued_writes %}
        planned += self.worker_replicas * self.worker_concurrency
        # {% endif %}
        return planned, self.db_max_connections

    @model_validator(mode="after")
    def refuse_embedded_parts_in_production(self) -> Self:
        """Check that production names a server for every part."""
        if self.production and self.embedded_database:
            raise ValueError("DATABASE_URL must name a PostgreSQL server when ENVIRONMENT is production")
        # {% if cookiecutter.caching %}
        if self.production and not self.redis_url:
            raise ValueError("REDIS_URL must name a Redis server when ENVIRONMENT is production")
        # {% endif %}
        # {% if cookiecutter.queued_writes %}
        if self.production and not self.broker_url:
            raise ValueError("BROKER_URL must name a RabbitMQ server when ENVIRONMENT is production")
        # {% endif %}
        return self

    @model_validator(mode="after")
    def fit_the_connection_budget(self) -> Self:
        """Check that all processes together stay below the connections that the database allows."""
        planned, limit = self.connection_budget
        api = self.api_replicas * self.web_concurrency
        sum_in_words = f"{api} API workers x {self.db_pool_size} + {self.db_reserved_connections} in reserve"
        # {% if cookiecutter.queued_writes %}
        writers = self.worker_replicas * self.worker_concurrency
        sum_in_words += f" + {writers} Celery processes x 1"
        # {% endif %}
        if planned > limit:
            raise ValueError(
                f"{sum_in_words} = {planned} database connections, but DB_MAX_CONNECTIONS is {limit}: "
                "lower WEB_CONCURRENCY or DB_POOL_SIZE, "
                # {% if cookiecutter.queued_writes %}
                "lower WORKER_CONCURRENCY, "
                # {% endif %}
                "or raise max_connections in PostgreSQL and DB_MAX_CONNECTIONS"
            )
        return self


def configure_log(settings: Settings) -> None:
    """Let this process log as the settings say."""
    logs.configure(settings.log_level, settings.log_format, quotes=not settings.production)


def load_settings() -> Settings:
    """Read the settings.

    Raises ConfigurationError with one sentence for each setting that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as error:
        sentences = [
            ": ".join([*(str(part).upper() for part in problem["loc"]), problem["msg"].removeprefix("Value error, ")])
            for problem in error.errors(include_url=False)
        ]
        raise ConfigurationError("; ".join(sentences)) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None


if __name__ == "__main__":
    # For Gunicorn's master, which imports nothing of the service.
    try:
        settings = load_settings()
        settings.read_api_keys()
        sys.stdout.write(settings.model_dump_json(include=FOR_GUNICORN))
    except ConfigurationError as error:
        sys.exit(f"The service does not start: {error}.")
