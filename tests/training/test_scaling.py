"""What the training rows say of each feature, of tables of every kind and of those that are read a piece at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.ranges import feature_excess
from tests.training.mixed import make_mixed_table
from tests.training.tables import make_table
from training import scaling
from training.data.table import Column
from training.errors import DataError
from training.scaling import measure


def test_numbers_are_measured_where_they_are() -> None:
    """Mean, deviation and range are numpy's over the rows that have a value; categories have 0, 1 and their numbers."""
    table = make_mixed_table()
    rows = np.arange(10, 300)
    found, x = measure(table, rows), table.x[rows].astype(np.float64)
    expected = (np.nanmean(x[:, :3], axis=0), np.nanstd(x[:, :3], axis=0))
    np.testing.assert_allclose(expected[0], found.mean[:3], rtol=1e-6)
    np.testing.assert_allclose(expected[1], found.scale[:3], rtol=1e-6)
    np.testing.assert_array_equal(np.nanmin(x[:, :3], axis=0).astype(np.float32), found.minimum[:3])
    np.testing.assert_array_equal(np.nanmax(x[:, :3], axis=0).astype(np.float32), found.maximum[:3])
    assert ([0, 0], [1, 1], [0, 0], [2, 2]) == tuple(
        figures[3:].tolist() for figures in (found.mean, found.scale, found.minimum, found.maximum)
    )


def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A memory map that is read seven rows at a time has the figures of the same table in memory."""
    table = make_mixed_table()
    rows = np.random.default_rng(0).permutation(400)[:250]
    whole = measure(table, rows)
    excess = whole.excess(table, np.arange(400))
    np.save(tmp_path / "x.npy", table.x)
    mapped = replace(table, x=np.load(tmp_path / "x.npy", mmap_mode="r"))
    monkeypatch.setattr(scaling, "ROWS_AT_ONCE", 7)
    pieces = measure(mapped, rows)
    for name in ("mean", "scale", "minimum", "maximum"):
        np.testing.assert_allclose(getattr(whole, name), getattr(pieces, name), rtol=1e-6)
    np.testing.assert_allclose(excess, whole.excess(mapped, np.arange(400)))


def test_excess_is_that_of_the_farthest_feature() -> None:
    """Of each row the greatest of its features' distances beyond their ranges; 0 for the training rows themselves."""
    table = make_table()
    found = measure(table, np.arange(100))
    every = feature_excess(table.x, found.minimum, found.maximum, found.scale)
    assert every.max(axis=1).tolist() == found.excess(table, np.arange(200)).tolist()
    assert 0.0 == found.excess(table, np.arange(100)).max() < found.excess(table, np.arange(200)).max()


def test_column_without_a_value_is_refused() -> None:
    """A number that no training row has cannot be scaled: the message names the column and what to do."""
    table = make_mixed_table()
    table.x[:50, 1] = np.nan
    with pytest.raises(DataError, match=r"column 'income': expected a value in some of the 50 .* --drop income"):
        measure(table, np.arange(50))


def test_table_of_categories_alone_is_refused() -> None:
    """Without a number there is nothing to take a derivative by."""
    categories = replace(make_table(), x=np.zeros((200, 1), np.float32), columns=(Column("c", categories=("a",)),))
    with pytest.raises(DataError, match="expected a numeric feature"):
        measure(categories, np.arange(100))
