"""The column to predict: classes, levels or values."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model.outputs import Task
from training.data.cells import NONE, TEXTS, Kind, Markers, kind_of, texts_to_numbers, to_numbers, to_texts
from training.data.numbers import NumberSurvey
from training.data.spelling import comma_message, misspelled
from training.errors import DataError

LEVELS = "levels as numbers, or as ordered categories (of Parquet or pandas), so that their order is known"
CLASSES_AT_MOST = 20  # whole numbers with more distinct values than this are read as a value to regress on


def read_target(
    where: str, cells: pa.Array, task: Task | None, missing: Markers = NONE, order: tuple[str, ...] = ()
) -> tuple[NDArray[np.int64] | NDArray[np.float32], tuple[str, ...], Task]:
    """The targets, the names of the classes or levels, and the task.

    Args:
        where: what messages begin with.
        cells: of all rows.
        task: None to tell: text, truth values and few whole numbers are classes, the rest is a value.
        missing: texts that stand for a missing value.
        order: the classes or levels from the lowest, where the column itself has an order; else none.

    Raises:
        DataError: a value is missing, or the column cannot be learned.
    """
    kind = kind_of(cells.type)
    if kind in (Kind.DATE, Kind.OTHER):
        raise DataError(f"{where}: expected text, truth values or numbers, got the type {cells.type}")
    texts = to_texts(cells, missing) if order or kind in (*TEXTS, Kind.EMPTY) else None
    values, odd = _numbers(cells, texts, missing)
    gaps = np.isnan(values) if texts is None else texts.is_null().to_numpy(zero_copy_only=False)
    if gaps.any():
        raise DataError(
            f"{where}: expected a value in every row, got {gaps.sum()} missing{_named(missing)}, the first in row "
            f"{np.argmax(gaps) + 1}"
        )
    if odd is None and not np.isfinite(values).all():
        row = int(np.argmax(~np.isfinite(values)))
        raise DataError(f"{where}: expected finite numbers, got {values[row]} in row {row + 1}")
    if texts is not None and odd is not None and not order and task is not Task.CLASSIFICATION:
        comma = misspelled(pc.unique(texts).to_pylist())
        if comma is not None:
            raise DataError(comma_message(where, comma, "--task classification, which takes them as classes"))
    task = task or (Task.CLASSIFICATION if order else _infer(kind, values, odd))
    if kind is Kind.TRUTH and task is Task.ORDINAL:
        raise DataError(f"{where}: expected {LEVELS}, got truth values; --task classification takes them")
    if (
        texts is not None
        and odd is not None
        and task is not Task.CLASSIFICATION
        and not (order and task is Task.ORDINAL)
    ):
        wanted = "numbers" if task is Task.REGRESSION else LEVELS
        raise DataError(f"{where}: expected {wanted}, got {texts[odd].as_py()!r} in row {odd + 1}")
    if task is Task.REGRESSION:
        survey = NumberSurvey()
        survey.add(values, 0)
        survey.check(where)
        return values.astype(np.float32), (), task
    names, places = _classes(kind, values, texts if order or odd is not None else None, order)
    if len(names) < 2:
        raise DataError(f"{where}: expected at least 2 classes, got only {names[0]!r}")
    if len(names) > len(places) // 2:
        raise DataError(
            f"{where}: expected classes that repeat, got {len(names)} different values in {len(places)} rows"
        )
    return places, tuple(names), task


def remarks_on(target: str, classes: tuple[str, ...], task: Task | None) -> tuple[str, ...]:
    """What a target's owner may want to read otherwise: three or more whole numbers in a row may be grades.

    Args:
        target: its name.
        classes: their names.
        task: that was asked for; None where it was told by the values.
    """
    whole = [int(name) for name in classes if re.fullmatch(r"0|-?[1-9]\d*", name)]
    if task is not None or len(classes) < 3 or len(whole) < len(classes) or whole[-1] - whole[0] != len(whole) - 1:
        return ()
    remark = (
        f"target {target!r}: whole numbers {whole[0]} … {whole[-1]} are taken as classes without an order; "
        "--task ordinal if their order counts"
    )
    return (remark,)


def _numbers(cells: pa.Array, texts: pa.Array | None, missing: Markers) -> tuple[NDArray[np.float64], int | None]:
    if texts is None:
        return to_numbers(cells, missing), None
    return texts_to_numbers(texts, missing)


def _infer(kind: Kind, values: NDArray[np.float64], odd: int | None) -> Task:
    if kind is Kind.TRUTH or odd is not None:
        return Task.CLASSIFICATION
    whole = np.array_equal(values, np.round(values))
    return Task.CLASSIFICATION if whole and len(pd.unique(values)) <= CLASSES_AT_MOST else Task.REGRESSION


def _named(missing: Markers) -> str:
    """What stood for a missing value."""
    met = missing.met(numeric=True)
    return f" ({', '.join(map(repr, met))})" if met else ""


def _classes(
    kind: Kind, values: NDArray[np.float64], texts: pa.Array | None, order: tuple[str, ...]
) -> tuple[list[str], NDArray[np.int64]]:
    """Names in their order, or by value or else by text, and each row's place among them."""
    if texts is not None:
        encoded = texts.dictionary_encode()
        names = encoded.dictionary.to_pylist()
        known = set(names)
        ordered = [name for name in order if name in known] or sorted(names)
        place = {name: k for k, name in enumerate(ordered)}
        ranks = np.array([place[name] for name in names], np.int64)
        return ordered, ranks[encoded.indices.to_numpy(zero_copy_only=False)]
    places, levels = pd.factorize(values, sort=True)
    if kind is Kind.TRUTH:
        return [str(bool(level)) for level in levels], places.astype(np.int64)
    return [_class_name(level) for level in levels.tolist()], places.astype(np.int64)


def _class_name(level: float) -> str:
    return str(int(level)) if level.is_integer() else str(level)
