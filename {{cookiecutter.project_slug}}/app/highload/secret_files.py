"""Secrets in files, as orchestrators hand them over."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsError

SUFFIX = "_file"


class SecretFiles(PydanticBaseSettingsSource):
    """Settings that stand in files: those that a variable names, and those in a directory, under their own names.

    Each setting that is not shown (`Field(repr=False)`) may be named so: `DATABASE_PASSWORD_FILE` is the path of a
    file with the password. `variables` are all that are set, by their names in small letters.

    No message shows a path, because it may be the secret itself that somebody has put there.
    """

    def __init__(
        self, settings_cls: type[BaseSettings], variables: Mapping[str, str | None], directory: Path | None
    ) -> None:
        super().__init__(settings_cls)
        self._variables = variables
        self._directory = directory

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        """Return nothing for one field, because all are read at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the settings.

        Raises SettingsError, with one sentence, for a file that cannot be used and for a setting that is there twice.
        """
        laid = {path.name.lower(): path for path in self._files()}
        values: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            variable = name.upper()
            places: dict[str, Path | None] = {variable: None} if self._variables.get(name) else {}
            if name in laid:
                places[f"the secret {name}"] = laid[name]
            named = None if field.repr else self._variables.get(name + SUFFIX)
            if named and not (name in laid and laid[name].resolve() == Path(named).resolve()):
                places[f"{variable}_FILE"] = Path(named)
            if len(places) > 1:
                raise SettingsError(f"{variable} is set more than once: keep one of {' and '.join(places)}")
            for place, path in places.items():
                if path is not None:
                    values[name] = text_of(path, place)
        return values

    def _files(self) -> Iterator[Path]:
        if self._directory is not None and self._directory.is_dir():
            yield from self._directory.iterdir()


def text_of(path: Path, place: str) -> str:
    """Return the text of a file without the end of its last line.

    Raises SettingsError.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except FileNotFoundError:
        raise SettingsError(f"{place} names a file that is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise SettingsError(f"{place} cannot be read: {reason}") from None
    if not text:
        raise SettingsError(f"{place} is an empty file")
    return text
