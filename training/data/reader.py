"""From a source of cells to a table: which columns there are, what each is, and the matrix of their values.

Two passes: the first tells types, categories and missing values, the second writes the values. So the same table
comes of a source that is larger than the memory and of one that is not.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from shlex import quote

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model.outputs import Task
from training.config import FitConfig
from training.data import spool
from training.data.cells import TEXTS, Kind, Markers, kind_of, to_texts
from training.data.columns import Cells, reader_of
from training.data.files import open_table
from training.data.readings import of_target, readings
from training.data.source import Source
from training.data.table import Table
from training.data.target import read_target, remarks_on
from training.errors import DataError


def read_table(path: Path, config: FitConfig) -> Table:
    """Read a table to train on from a .csv, .csv.gz or .parquet file.

    Args:
        path: of the file.
        config: what to predict, which columns to leave out or to read in a way of their own, and how much memory a
            table may take: a larger Parquet file becomes a matrix in a file that is mapped into memory.

    Raises:
        DataError: a named column is not there, or a column holds what cannot be learned from. The message names it.
    """
    return make_table(open_table(path, {*config.categorical, *((config.group,) if config.group else ())}), config)


def make_table(source: Source, config: FitConfig, *, test_rows: int = 0) -> Table:
    """Make a table of a source; see `read_table`.

    Args:
        source: of the cells.
        config: as for `read_table`.
        test_rows: how many of the last rows are a published test split.
    """
    target, features = _choose_columns(source, config)
    if not source.rows:
        raise DataError(f"{source.where}: expected rows, got none")
    markers = {name: Markers(config.missing.get(name, ()), source.missing) for name in features}
    readers = {
        name: reader_of(
            f"{source.where}: column {name!r}",
            source.schema.field(name),
            config,
            markers[name],
            category=name in source.categories,
        )
        for name in features
    }
    start = 0
    for batch in source.batches(features):
        for name, reader in readers.items():
            _survey(source, name, reader, batch.column(name), start)
        start += batch.num_rows
    if start != source.rows:
        raise DataError(f"{source.where}: cannot read the table: expected {source.rows} rows, got {start}")
    columns = tuple(reader.decide() for reader in readers.values())
    asked = Task(config.task) if config.task else None
    y, classes, task = read_target(
        f"{source.where}: target {target!r}",
        source.column(target),
        asked,
        Markers(config.missing.get(target, ()), source.missing),
        _order(source, target),
    )
    unit = config.units.get(target)
    if unit and task is not Task.REGRESSION:
        raise DataError(f"{source.where}: expected no unit of the target {target!r} in {task}, got {unit!r}")
    groups = _groups(source, config) if config.group else None
    shape = (source.rows, len(features))
    large = max(source.size, source.rows * len(features) * 8) > config.memory * 2**30
    pieces = _pieces(source, readers)
    x = spool.in_file(pieces, shape, config.scratch) if large else spool.in_memory(pieces, shape)
    pa.default_memory_pool().release_unused()  # Arrow's buffers, which it would keep for more reading
    return Table(
        name=source.name,
        x=x,
        y=y,
        columns=columns,
        target=target,
        task=task,
        classes=classes,
        target_unit=unit,
        test_rows=test_rows,
        groups=groups,
        remarks=(
            *(
                f"column {column.name!r}: no cell is {text!r} (--missing)"
                for column in columns
                for text in markers[column.name].not_met(numeric=not column.categorical)
            ),
            *(remark for reader in readers.values() for remark in reader.remarks()),
            *remarks_on(target, classes, asked),
        ),
        readings=readings(
            source.schema.names,
            readers,
            (target, of_target(task, classes, unit)),
            None if config.group is None or groups is None else (config.group, groups),
        ),
    )


def _survey(source: Source, name: str, reader: Cells, cells: pa.Array, start: int) -> None:
    try:
        reader.survey(cells, start)
    except pa.ArrowException as error:
        raise DataError(
            f"{source.where}: column {name!r}: cannot read values of the type {cells.type}; leave the column out with "
            f"--drop {quote(name)}"
        ) from error


def _pieces(source: Source, readers: Mapping[str, Cells]) -> Iterator[NDArray[np.float32]]:
    for batch in source.batches(list(readers)):
        piece = np.empty((batch.num_rows, len(readers)), np.float32)
        for k, (name, reader) in enumerate(readers.items()):
            piece[:, k] = reader.encode(batch.column(name))
        yield piece


def _choose_columns(source: Source, config: FitConfig) -> tuple[str, list[str]]:
    """The target and the features; raises DataError where the settings and the columns do not fit each other."""
    where, columns = source.where, source.schema.names
    if config.target is None:
        raise DataError(f"{where}: expected --target, one of the columns {columns}")
    target = config.target
    named = {
        "target": (target,),
        "drop": config.drop,
        "group": (config.group,) if config.group else (),
        "numeric": config.numeric,
        "categorical": config.categorical,
        "missing": tuple(config.missing),
        "units": tuple(config.units),
    }
    for flag, names in named.items():
        for name in names:
            if name not in columns:
                raise DataError(
                    f"{where}: --{flag}: expected one of the columns {columns}, got {name!r}{_hint(name, columns)}"
                )
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated or not all(column.strip() for column in columns):
        raise DataError(f"{where}: expected columns with names of their own, got {repeated or columns}")
    for flag in ("numeric", "categorical", "units", "missing"):
        for other, role in (("drop", "to leave out"), ("group", "of the groups")):
            both = sorted(set(named[flag]) & set(named[other]))
            if both and (flag, other) != ("missing", "group"):
                raise DataError(f"{where}: --{flag}: expected features, got the column {role} {both[0]!r}")
    if target in config.drop or target == config.group:
        flag = "--drop" if target in config.drop else "--group"
        raise DataError(f"{where}: expected the target {target!r} to be kept, got it as {flag}")
    if config.group in config.drop:
        raise DataError(f"{where}: expected the group {config.group!r} to be kept, got it as --drop; it is no feature")
    for flag in ("numeric", "categorical"):
        if target in named[flag]:
            raise DataError(
                f"{where}: --{flag}: expected features, got the target {target!r}; --task says how it is read"
            )
    both = sorted(set(config.numeric) & set(config.categorical))
    if both:
        raise DataError(f"{where}: expected {both[0]!r} as --numeric or as --categorical, got both")
    features = [column for column in columns if column not in (target, config.group, *config.drop)]
    for column in features:
        if re.fullmatch(r"Unnamed: \d+", column):  # what pandas calls an empty cell of the header
            raise DataError(
                f"{where}: expected a name for every column, got none for {column!r} (row numbers, perhaps); "
                f"leave it out with --drop '{column}'"
            )
    if not features:
        raise DataError(f"{where}: expected at least one feature column besides the target, got none")
    return target, features


def _hint(name: str, columns: list[str]) -> str:
    if len(columns) == 1 and ";" in columns[0]:
        return " (is the table separated by semicolons? commas are expected)"
    close = get_close_matches(name, columns, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _order(source: Source, name: str) -> tuple[str, ...]:
    """The categories of a column in their order, from the lowest; none where they have none."""
    type_ = source.schema.field(name).type
    if not (kind_of(type_) is Kind.CATEGORY and type_.ordered):
        return ()
    orders = {tuple(to_texts(batch.column(name).dictionary).to_pylist()) for batch in source.batches([name])}
    if len(orders) > 1:  # pieces that number their categories as they come
        return ()
    return next(iter(orders), ())


def _groups(source: Source, config: FitConfig) -> NDArray[np.int64]:
    """The number of each row's group, in the order in which they first come."""
    name = config.group or ""
    where = f"{source.where}: group {name!r}"
    cells = source.column(name)
    if kind_of(cells.type) is Kind.OTHER:
        raise DataError(f"{where}: expected text, numbers or dates, got the type {cells.type}")
    declared = config.missing.get(name, ()) if kind_of(cells.type) in TEXTS else ()
    try:
        texts = to_texts(cells, Markers(declared, source.missing))
    except pa.ArrowException as error:
        raise DataError(f"{where}: expected text, numbers or dates, got the type {cells.type}") from error
    gaps = texts.is_null().to_numpy(zero_copy_only=False)
    if gaps.any():
        raise DataError(
            f"{where}: expected a value in every row, got {gaps.sum()} missing, the first in row {np.argmax(gaps) + 1}"
        )
    numbers: NDArray[np.int64] = texts.dictionary_encode().indices.to_numpy().astype(np.int64)
    return numbers
