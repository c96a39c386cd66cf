"""Rare categories, and what a categorical column must have to be learned from."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.manifest import OTHER
from tests.training.tables import make_config, make_frame, read, refused, write
from training.data.categories import CATEGORIES_AT_MOST
from training.data.reader import make_table
from training.data.source import frame_source
from training.data.table import Column


def frame_of(texts: Sequence[str | None]) -> pd.DataFrame:
    """A frame with these texts as feature `kind`."""
    return make_frame(len(texts)).assign(kind=pd.Series(texts, dtype="str"))


def test_rare_categories_are_taken_together(tmp_path: Path) -> None:
    """Those with fewer rows than `--min-category-rows` share one number after the last category."""
    texts = ["a"] * 60 + ["b"] * 10 + ["c"] * 9 + ["d"] * 1 + ["e"] * 40
    table = read(write(frame_of(texts), tmp_path / "t.csv"))
    assert Column("kind", categories=("a", "b", "e"), other=True) == table.columns[2]
    assert [0.0] * 60 + [1.0] * 10 + [3.0] * 10 + [2.0] * 40 == table.x[:, 2].tolist()


def test_one_rare_category_is_other_by_itself(tmp_path: Path) -> None:
    """So that a row of a category that was never seen has a number too."""
    table = read(write(frame_of(["a"] * 60 + ["b"] * 59 + ["c"]), tmp_path / "t.csv"))
    assert Column("kind", categories=("a", "b"), other=True) == table.columns[2]
    assert 2.0 == table.x[-1, 2]


def test_without_a_rare_category_there_is_no_other(tmp_path: Path) -> None:
    """Ten rows each are enough by default."""
    table = read(write(frame_of(["a"] * 110 + ["b"] * 10), tmp_path / "t.csv"))
    assert Column("kind", categories=("a", "b")) == table.columns[2]


def test_a_category_called_other_is_the_other(tmp_path: Path) -> None:
    """The name that the rest has is not given to a category beside it."""
    table = read(write(frame_of(["a"] * 60 + [OTHER] * 60), tmp_path / "t.csv"))
    assert Column("kind", categories=("a",), other=True) == table.columns[2]
    assert 1.0 == table.x[-1, 2]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    texts=st.lists(st.sampled_from(["a", "bb", "c d", "é", "1", "2", None]), min_size=100, max_size=160),
    least=st.integers(1, 30),
)
def test_every_row_has_the_number_of_its_category(texts: list[str | None], least: int) -> None:
    """Whatever the counts: number → category gives the text back, other stands for rare ones, NaN for none."""
    counts = Counter(text for text in texts if text is not None)
    frequent = sorted(text for text, rows in counts.items() if rows >= least)
    if len(counts) < 3 or not frequent or not set(frequent) - {"1", "2"}:
        return
    source = frame_source(frame_of(texts), "t", "t")
    table = make_table(source, make_config(target="outcome", min_category_rows=least))
    column, numbers = table.columns[2], table.x[:, 2]
    assert (tuple(frequent), len(frequent) < len(counts)) == (column.categories, column.other)
    assert (None in texts) == column.missing
    for text, number in zip(texts, numbers.tolist(), strict=True):
        if text is None:
            assert np.isnan(number)
        elif text in frequent:
            assert text == column.categories[int(number)]
        else:
            assert len(frequent) == number


def test_only_rare_categories_are_refused(tmp_path: Path) -> None:
    """Nothing would be left but other: the message names the column and the most frequent category."""
    message = refused(write(frame_of([f"k{row // 6}" for row in range(120)]), tmp_path / "t.csv"))
    assert (
        "column 'kind': expected a category with at least 10 rows, got 6 at most ('k0'); "
        "leave it out with --drop kind, or lower --min-category-rows"
    ) == message


def test_too_many_categories_are_refused(tmp_path: Path) -> None:
    """Each is a column of the first layer: more than a thousand are no categories that a person chooses from."""
    rows = 3 * (CATEGORIES_AT_MOST + 1)
    path = write(frame_of([f"k{row // 3}" for row in range(rows)]), tmp_path / "t.parquet")
    message = refused(path, min_category_rows=3)
    assert "column 'kind': expected at most 1000 categories with at least 3 rows, got 1001; " in message


def test_one_category_is_refused(tmp_path: Path) -> None:
    """The same text in every row says nothing."""
    message = refused(write(frame_of(["tall"] * 120), tmp_path / "t.csv"))
    assert (
        "column 'kind': expected values that differ, got 'tall' in every row; leave it out with --drop kind" == message
    )


def test_one_category_or_none_is_enough(tmp_path: Path) -> None:
    """A text that is there or missing does say something."""
    table = read(write(frame_of(["yes", None] * 60), tmp_path / "t.csv"))
    assert Column("kind", categories=("yes",), missing=True) == table.columns[2]


@pytest.mark.parametrize("setting", [{}, {"categorical": ("kind",)}, {"numeric": ("kind",)}])
def test_column_without_values_is_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    """All missing, however the column is to be read: the message names it and `--drop`."""
    message = refused(write(frame_of([None] * 120), tmp_path / "t.csv"), **setting)
    assert message.startswith("column 'kind': expected ")
    assert message.endswith(", got 120 missing values and nothing else; leave it out with --drop kind")
