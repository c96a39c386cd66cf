"""From the name of a data set to a table."""

from pathlib import Path

from model.outputs import Task
from training.config import FitConfig
from training.data import embedded, files, idx
from training.data.table import Table
from training.errors import DataError

EMBEDDED = {"digits": embedded.digits, "breast_cancer": embedded.breast_cancer}
NAMED = (*EMBEDDED, *idx.OPENML)


def load(config: FitConfig) -> Table:
    """Load what `config.dataset` names: an embedded data set, images, or else the path of a table.

    Raises:
        DataError: it cannot be found or read; flags were given that it has no use for.
    """
    if config.dataset not in NAMED:
        path = Path(config.dataset)
        if not path.suffix and not path.exists():
            raise DataError(
                f"{config.dataset}: expected one of {', '.join(NAMED)}, or the path of a .csv, .csv.gz or .parquet file"
            )
        return files.read_table(path, config.target, config.drop, Task(config.task) if config.task else None)
    if config.target or config.drop or config.task:
        raise DataError(f"{config.dataset}: its target is known; --target, --drop and --task are for tables")
    if config.dataset in EMBEDDED:
        return EMBEDDED[config.dataset]()
    if config.data and not (config.data / config.dataset).is_dir():
        raise DataError(
            f"{config.data / config.dataset}: expected a folder with the IDX files of {config.dataset}, got none"
        )
    return idx.images(config.dataset, config.data_folder())
