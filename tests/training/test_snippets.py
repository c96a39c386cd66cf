"""The snippets of film reviews: small files in their format, and the real ones where they are at hand."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from model.outputs import Task
from training.config import FitConfig
from training.data.load import load
from training.data.snippets import EMBEDDINGS, LEVELS, RATINGS, movie_snippets
from training.errors import DataError

DATA = os.environ.get("CHAINZRULE_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="the folder with snippets/: set CHAINZRULE_DATA")
ROWS = 30
MEANS = (-4.0, -2.4, -2.3999, -0.8, -0.7999, 0.0, 0.8, 0.8001, 2.4, 4.0)
LEVEL_OF_MEAN = (0, 0, 1, 1, 2, 2, 2, 3, 3, 4)


def random_embeddings(rows: int = ROWS, numbers: int = 6) -> np.ndarray[tuple[int, int], np.dtype[np.float16]]:
    """Random float16 vectors."""
    return np.random.default_rng(0).standard_normal((rows, numbers)).astype(np.float16)


def write_ratings(folder: Path, means: list[Any]) -> None:
    """Sentences with these means, in the layout of `movie.csv.gz`."""
    frame = pd.DataFrame({"id": range(len(means)), "mean_rating": means, "ratings": "0 0", "text": "so, so"})
    frame.to_csv(folder / RATINGS, index=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a small `snippets/`."""
    folder = tmp_path / "snippets"
    folder.mkdir()
    write_ratings(folder, [MEANS[k % len(MEANS)] for k in range(ROWS)])
    np.savez_compressed(folder / EMBEDDINGS, X=random_embeddings())
    return tmp_path


def test_snippets_from_a_folder(data: Path) -> None:
    """Embeddings are features of one scale; ratings of −4 to 4 fall into five bins of equal width, closed above."""
    table = load(FitConfig(dataset="movie_snippets", data=data))
    np.testing.assert_array_equal(random_embeddings().astype(np.float32), table.x)
    assert list(LEVEL_OF_MEAN) * (ROWS // len(MEANS)) == table.y.tolist()
    assert ("movie_snippets", Task.ORDINAL, "sentiment") == (table.name, table.task, table.target)
    assert ("very negative", "negative", "neutral", "positive", "very positive") == LEVELS == table.classes
    assert ("embedding_0", "embedding_5") == (table.features[0], table.features[-1])
    assert (np.dtype(np.float32), np.dtype(np.int64)) == (table.x.dtype, table.y.dtype)
    assert ("coordinate of the embedding", None, 0) == (table.common_unit, table.common_range, table.test_rows)


def test_folder_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nowhere to fetch the embeddings from: the message says which files are expected."""
    files = r"snippets/movie\.csv\.gz \(column mean_rating\) and snippets/movie_minilm\.npz \(array X"
    for folder, got in ((None, "none"), (tmp_path, str(tmp_path))):
        with pytest.raises(DataError, match=f"movie_snippets: expected the folder that holds {files}.* got {got}; "):
            movie_snippets(folder)
    monkeypatch.delenv("CHAINZRULE_DATA", raising=False)
    with pytest.raises(DataError, match="movie_snippets: expected the folder that holds"):
        load(FitConfig(dataset="movie_snippets"))
    with pytest.raises(
        DataError, match=r"snippets: expected a folder with the files movie\.csv\.gz and movie_minilm\.npz of movie_"
    ):
        load(FitConfig(dataset="movie_snippets", data=tmp_path))


@pytest.mark.parametrize("file", [RATINGS, EMBEDDINGS])
def test_missing_file_is_refused(data: Path, file: str) -> None:
    """Both files are needed, and named where one is not there."""
    (data / "snippets" / file).unlink()
    with pytest.raises(DataError, match=f"{file}: expected a file of the data set, got none there"):
        movie_snippets(data)


@pytest.mark.parametrize("file", [RATINGS, EMBEDDINGS])
@pytest.mark.parametrize("kept", [0, 20, 0.5, 0.95])
def test_truncated_file_is_refused(data: Path, file: str, kept: float) -> None:
    """A download that broke off is refused by name."""
    path = data / "snippets" / file
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(
        DataError, match=f"{file}: (cannot read the |expected a header and rows, but the file is empty)"
    ):
        movie_snippets(data)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Y": random_embeddings()}, "cannot read the array 'X' of it: "),
        ({"X": np.array([{"a": 1}], dtype=object)}, "cannot read the array 'X' of it: "),
        ({"X": random_embeddings()[0]}, r"expected 'X' of finite floats \[sentences, numbers\], got float16 of shape"),
        ({"X": np.zeros((ROWS, 6), np.int64)}, "expected 'X' of finite floats"),
        ({"X": np.full((ROWS, 6), np.nan)}, "expected 'X' of finite floats"),
    ],
    ids=["another name", "objects", "one axis", "whole numbers", "NaN"],
)
def test_other_arrays_are_refused(data: Path, arrays: dict[str, Any], message: str) -> None:
    """An array X of finite floats, or a message that says what came; nothing is unpickled."""
    np.savez(data / "snippets" / EMBEDDINGS, **arrays)
    with pytest.raises(DataError, match=f"{EMBEDDINGS}: {message}"):
        movie_snippets(data)


def test_ratings_and_embeddings_must_fit(data: Path) -> None:
    """One embedding a rating, or a message that counts both."""
    np.savez(data / "snippets" / EMBEDDINGS, X=random_embeddings(ROWS - 1))
    with pytest.raises(DataError, match=f"snippets: expected one embedding a rating, got 29 embeddings and {ROWS} rat"):
        movie_snippets(data)


@pytest.mark.parametrize(("mean", "shown"), [(4.1, "4.1"), (-5.0, "-5.0"), (None, "nan"), ("good", "good")])
def test_other_ratings_are_refused(data: Path, mean: object, shown: str) -> None:
    """A mean of ratings lies in −4 to 4: the message has the first row that does not."""
    write_ratings(data / "snippets", [0.0, mean, *[1.0] * (ROWS - 2)])
    with pytest.raises(DataError, match=f"column 'mean_rating': expected −4 to 4, got {shown} in row 2$"):
        movie_snippets(data)


def test_missing_column_is_refused(data: Path) -> None:
    """Without the means there is nothing to predict."""
    pd.DataFrame({"id": range(ROWS)}).to_csv(data / "snippets" / RATINGS, index=False)
    with pytest.raises(DataError, match=r"expected a column 'mean_rating', got the columns \['id'\]"):
        movie_snippets(data)


@needs_data
def test_real_snippets() -> None:
    """10,605 sentences of 384 numbers, vectors of length 1; most are positive or negative, not very."""
    table = load(FitConfig(dataset="movie_snippets", data=Path(DATA or "")))
    assert ((10_605, 384), 10_605) == (table.x.shape, len(table.y))
    assert [1057, 3765, 1011, 3769, 1003] == np.bincount(table.y).tolist()
    np.testing.assert_allclose(1.0, np.linalg.norm(table.x, axis=1), atol=2e-3)
