"""Sentences of film reviews by how positive they are: embeddings, and raters' mean in five levels.

Hutto and Gilbert, VADER: a parsimonious rule-based model for sentiment analysis of social media text, ICWSM 2014.
"""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model.outputs import Task
from training.data.files import read_csv
from training.data.table import Column, Table
from training.errors import DataError

NAME = "movie_snippets"
RATINGS, EMBEDDINGS = "movie.csv.gz", "movie_minilm.npz"
LEVELS = ("very negative", "negative", "neutral", "positive", "very positive")
# Five bins of equal width over −4 … 4, each closed above, as SST-5 cuts its scale of 0 … 1.
EDGES = (-2.4, -0.8, 0.8, 2.4)
LEAST, GREATEST = -4.0, 4.0


def movie_snippets(data: Path | None) -> Table:
    """10,605 sentences of film reviews as embeddings of 384 numbers (all-MiniLM-L6-v2), in five ordered levels.

    The numbers of an embedding share one scale: they are coordinates of a vector of length 1.

    Args:
        data: folder that holds `snippets/movie.csv.gz` (with `mean_rating`) and `snippets/movie_minilm.npz` (`X`).

    Raises:
        DataError: a file is missing or damaged, or the two do not fit each other.
    """
    if data is None or not (data / "snippets").is_dir():
        raise DataError(
            f"{NAME}: expected the folder that holds snippets/{RATINGS} (column mean_rating) and snippets/{EMBEDDINGS} "
            f"(array X, one row a sentence) by --data, got {'none' if data is None else data}; the embeddings are not "
            "published, so they cannot be fetched"
        )
    ratings = _ratings(data / "snippets" / RATINGS)
    x = _embeddings(data / "snippets" / EMBEDDINGS)
    if len(ratings) != len(x):
        raise DataError(
            f"{data / 'snippets'}: expected one embedding a rating, got {len(x)} embeddings and {len(ratings)} ratings"
        )
    return Table(
        name=NAME,
        x=x,
        y=np.digitize(ratings, EDGES, right=True).astype(np.int64),
        columns=tuple(Column(f"embedding_{k}") for k in range(x.shape[1])),
        target="sentiment",
        task=Task.ORDINAL,
        classes=LEVELS,
        common_unit="coordinate of the embedding",
    )


def _ratings(path: Path) -> NDArray[np.float64]:
    if not path.is_file():
        raise DataError(f"{path}: expected a file of the data set, got none there")
    frame = read_csv(path)
    if "mean_rating" not in frame:
        raise DataError(f"{path}: expected a column 'mean_rating', got the columns {list(frame.columns)}")
    ratings = pd.to_numeric(frame["mean_rating"], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~((ratings >= LEAST) & (ratings <= GREATEST))
    if bad.any():
        row = int(np.argmax(bad))
        got = frame["mean_rating"].iloc[row]
        raise DataError(f"{path}: column 'mean_rating': expected −4 to 4, got {got} in row {row + 1}")
    return ratings


def _embeddings(path: Path) -> NDArray[np.float32]:
    if not path.is_file():
        raise DataError(f"{path}: expected a file of the data set, got none there")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            x = arrays["X"]
    except (KeyError, ValueError, OSError, EOFError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot read the array 'X' of it: {' '.join(str(error).split())}") from error
    if x.ndim != 2 or x.dtype.kind != "f" or not x.size or not np.isfinite(x).all():
        raise DataError(f"{path}: expected 'X' of finite floats [sentences, numbers], got {x.dtype} of shape {x.shape}")
    narrowed: NDArray[np.float32] = x.astype(np.float32)
    return narrowed
