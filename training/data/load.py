"""From the name of a data set to a table."""

from collections.abc import Callable
from pathlib import Path

from training.config import FitConfig
from training.data import embedded, idx, snippets, tabular
from training.data.reader import read_table
from training.data.table import Table
from training.errors import DataError

EMBEDDED = {"digits": embedded.digits, "breast_cancer": embedded.breast_cancer}
PUBLISHED: dict[str, tuple[str, str, Callable[[Path | None, FitConfig], Table]]] = {
    "mnist": ("mnist", "IDX files", lambda data, config: idx.images("mnist", data)),
    "fashion-mnist": ("fashion-mnist", "IDX files", lambda data, config: idx.images("fashion-mnist", data)),
    "pima": ("pima", "file pima.csv", tabular.pima),
    "adult": ("adult", "files train.csv.gz and test.csv.gz", tabular.adult),
    snippets.NAME: (
        "snippets",
        f"files {snippets.RATINGS} and {snippets.EMBEDDINGS}",
        lambda data, config: snippets.movie_snippets(data),
    ),
}
"""The folder of each under that of --data, what it holds, and what reads it."""
NAMED = (*EMBEDDED, *PUBLISHED)
OF_TABLES = ("target", "drop", "numeric", "categorical", "missing", "units", "group", "task")
"""Settings that a named data set has no use for."""


def load(config: FitConfig) -> Table:
    """Load what `config.dataset` names: an embedded or a published data set, or else the path of a table.

    Raises:
        DataError: it cannot be found or read; flags were given that it has no use for.
    """
    if config.dataset not in NAMED:
        path = Path(config.dataset)
        if not path.suffix and not path.exists():
            raise DataError(
                f"{config.dataset}: expected one of {', '.join(NAMED)}, or the path of a .csv, .csv.gz or .parquet file"
            )
        return read_table(path, config)
    given = next((setting for setting in OF_TABLES if getattr(config, setting)), None)
    if given:
        raise DataError(
            f"{config.dataset}: its columns and its target are known; --{given} is for tables, got "
            f"{getattr(config, given)!r}"
        )
    if config.dataset in EMBEDDED:
        return EMBEDDED[config.dataset]()
    folder, files, read = PUBLISHED[config.dataset]
    if config.data and not (config.data / folder).is_dir():
        raise DataError(
            f"{config.data / folder}: expected a folder with the {files} of {config.dataset}, got "
            f"{'a file' if (config.data / folder).exists() else 'none'}"
        )
    return read(config.data_folder(), config)
