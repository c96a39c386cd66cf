"""The user's own table as a file: CSV (plain or gzipped) or Parquet."""

import csv
import gzip
import re
import warnings
import zlib
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from training.data.source import Source, frame_source, name_of, parquet_source
from training.errors import DataError

NA_TEXTS = (
    *("NA", "N/A", "n/a", "#NA", "#N/A", "#N/A N/A", "<NA>", "NULL", "null", "None"),
    *("NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
"""Texts that stand for a missing value in every column of a CSV: those that pandas reads so by default. An empty cell,
which always is missing, is not among them."""


def open_table(path: Path, as_text: Collection[str] = ()) -> Source:
    """Open a .csv, .csv.gz or .parquet file.

    Args:
        path: of the file.
        as_text: columns of a CSV whose cells are kept as they are spelled ("1.0"), as those of a column are anyway in
            which a cell has leading zeros ("007"); names of no column do nothing.

    Raises:
        DataError: it is none of these, or cannot be read.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "none there"
        raise DataError(f"{path}: expected the path of a file, got {got}")
    if path.suffix == ".parquet":
        return parquet_source(path)
    if path.name.endswith((".csv", ".csv.gz")):
        return frame_source(read_csv(path, as_text), name_of(path), str(path), NA_TEXTS)
    raise DataError(f"{path}: expected a .csv, .csv.gz or .parquet file, got {path.suffix or 'no ending'!r}")


def read_csv(path: Path, as_text: Collection[str] = ()) -> pd.DataFrame:
    """Read a CSV, commas between its values and names in its first row; raises DataError where it is malformed.

    Empty cells are missing. Texts that stand for a missing value (`NA_TEXTS`) stay as they are: which of them came is
    for the manifest to say, so that the service takes them for the same.
    """
    try:
        if path.suffix == ".gz":
            _check_gzip(path)
        names, padded = _check_shape(path)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a value would be lost
            return pd.read_csv(
                path,
                skipinitialspace=True,
                index_col=False,
                low_memory=False,
                encoding="utf-8-sig",
                keep_default_na=False,
                na_values=[""],
                dtype={name: "str" for name in names if name in as_text or name in padded},
            )
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot read the table: expected UTF-8, {_encoding(error)}") from error
    # pandas' own errors are ValueErrors, zlib's is none.
    except (ValueError, OSError, EOFError, OverflowError, zlib.error, csv.Error, pd.errors.ParserWarning) as error:
        raise DataError(f"{path}: cannot read the table: {' '.join(str(error).split())}") from error


def _check_gzip(path: Path) -> None:
    """Unpack it once to the end, where its checksum is: what a damaged file unpacks to may look like a bad table."""
    with gzip.open(path, "rb") as file:
        while file.read(2**20):
            pass


def _check_shape(path: Path) -> tuple[list[str], set[str]]:
    """The names of the columns, and of those in which a cell is a whole number with leading zeros.

    pandas numbers repeated names, fills short rows up with missing values, and reads 01234 as 1234.

    Raises:
        DataError: names repeat, or a row has more or fewer values.
    """
    padded: set[int] = set()
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = filter(None, csv.reader(file, skipinitialspace=True))
        names = next(rows, [])
        if not names:
            raise DataError(f"{path}: expected a header and rows, but the file is empty")
        repeated = sorted({name for name in names if name and names.count(name) > 1})
        if repeated:
            raise DataError(f"{path}: expected columns with names of their own, got {repeated} more than once")
        separators = ((";", "semicolons"), ("\t", "tabs"))
        found = next((plural for separator, plural in separators if separator in names[0]), None)
        if len(names) == 1 and found:
            raise DataError(
                f"{path}: expected commas between the values, got a header separated by {found}: {names[0]!r}"
            )
        for number, row in enumerate(rows, 1):
            for place, cell in enumerate(row):
                if cell[:1] == "0" and cell[1:].rstrip().isdigit():
                    padded.add(place)
            # A comma at the end of each row is a habit of some programs; pandas refuses it where only some have it.
            if len(row) != len(names) and not (len(row) == len(names) + 1 and not row[-1]):
                raise DataError(
                    f"{path}: row {number}: expected {len(names)} values, one for each name of the header, "
                    f"got {len(row)}"
                )
    return names, {name for place, name in enumerate(names) if place in padded}


def _encoding(error: UnicodeDecodeError) -> str:
    """What the text is instead of UTF-8, and what to do about it."""
    byte = f"got the byte 0x{error.object[error.start]:02x}"
    if error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
        return f"{byte}: it looks like UTF-16; convert it, as by iconv -f utf-16 -t utf-8"
    try:
        text = error.object.decode("cp1252")
    except UnicodeDecodeError:
        text = "\0"
    if not all(character.isprintable() or character.isspace() for character in text):
        return f"{byte} ({error.reason})"
    word = (
        re.findall(r"[^\s,;\"]*$", text[: error.start])[0][-20:]
        + re.findall(r"^[^\s,;\"]*", text[error.start :])[0][:20]
    )
    return f"{byte} in {word!r}: it looks like cp1252 or latin-1; convert it, as by iconv -f cp1252 -t utf-8"
