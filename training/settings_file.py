"""A file of settings: TOML, with the names of the flags in snake or kebab case.

target = "outcome"
hidden = [64, 32]
dreg-weight = 0.3

[missing]            # texts that stand for a missing value, by column
insulin = 0
bmi = [0, "?"]

[units]
age = "years"
"""

import tomllib
from pathlib import Path

from pydantic import BaseModel

from training.errors import SettingsError
from training.settings import canonical

TABLES = ("missing", "units")
"""Settings that are by column."""


def read_settings(path: Path, model: type[BaseModel]) -> dict[str, object]:
    """Read a file of settings, by the names of fields; their values are not checked yet.

    Args:
        path: of the file.
        model: whose fields may be named.

    Raises:
        SettingsError: the file cannot be read, is no TOML, or names what is no setting. The message names the file.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: expected a file of settings: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: expected TOML: {error}") from error
    settings = canonical(document, model, str(path))
    if "config" in settings:
        raise SettingsError(f"{path}: expected the settings themselves, got 'config', another file")
    for name, value in settings.items():
        if isinstance(value, dict) != (name in TABLES):
            expected = f"a table of columns, [{name}]" if name in TABLES else "no table"
            raise SettingsError(f"{path}: {name}: expected {expected}, got {value!r}")
    return settings
