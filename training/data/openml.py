"""Public data sets from OpenML, through scikit-learn, which keeps what it has fetched."""

from typing import Any

from sklearn.datasets import fetch_openml

from training.errors import DataError


def fetch(name: str, openml_name: str, version: int, *, as_frame: bool, files: str) -> Any:
    """Fetch the features and the target of a data set.

    Args:
        name: of the data set here.
        openml_name: there.
        version: there.
        as_frame: pandas objects, else numpy arrays.
        files: what the folder of --data would have to hold instead.

    Raises:
        DataError: OpenML cannot be reached, or its answer cannot be read.
    """
    try:
        return fetch_openml(openml_name, version=version, as_frame=as_frame, parser="auto", return_X_y=True)
    except Exception as error:  # whatever the network, the cache or the parser raises
        raise DataError(
            f"{name}: cannot fetch {openml_name!r} from OpenML ({' '.join(str(error).split())}); "
            f"or give the folder that holds {files} by --data"
        ) from error
