"""Pima and Adult: tables with missing values and categories, from a folder or from OpenML."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pandas as pd

from training.config import FitConfig
from training.data import openml
from training.data.files import NA_TEXTS, read_csv
from training.data.reader import make_table
from training.data.source import frame_source
from training.data.table import Table
from training.errors import DataError

PIMA_COLUMNS = {  # and what OpenML calls them
    "pregnancies": "preg",
    "glucose": "plas",
    "blood_pressure": "pres",
    "skin_thickness": "skin",
    "insulin": "insu",
    "bmi": "mass",
    "diabetes_pedigree": "pedi",
    "age": "age",
}
PIMA_TARGET = "outcome"
PIMA_REMARK = "outcome 1: diabetes within five years; outcome 0: none"
PIMA_MISSING = ("glucose", "blood_pressure", "skin_thickness", "insulin", "bmi")  # where a zero stands for it
PIMA_UNITS = {  # Smith and others, Using the ADAP learning algorithm to forecast the onset of diabetes mellitus, 1988
    "glucose": "mg/dL",
    "blood_pressure": "mm Hg",
    "skin_thickness": "mm",
    "insulin": "µU/mL",
    "bmi": "kg/m²",
    "age": "years",
}
ADULT_NUMERIC = ("age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week")
ADULT_CATEGORICAL = (
    "workclass",
    "education",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native_country",
)
ADULT_TARGET = "income"
ADULT_UNITS = {"age": "years", "capital_gain": "US dollars", "capital_loss": "US dollars", "hours_per_week": "hours"}
ADULT_TEST_ROWS = 16_281
FIRST_OF_ADULT_TEST = 226_802  # fnlwgt of the first row of the published test split


def pima(data: Path | None, config: FitConfig) -> Table:
    """768 women of Pima heritage, 8 measures; 268 had diabetes within five years (Smith and others, 1988).

    A zero of glucose, blood pressure, skin thickness, insulin or BMI is missing. The classes are called 0 and 1, as in
    the published file, which can so be audited by its own column; a remark says what they mean. From OpenML
    (`diabetes`, version 1) come the same rows.

    Args:
        data: folder that may hold `pima/pima.csv`; else it comes from OpenML.
        config: the settings; rows below which categories are taken together are of no use here.

    Raises:
        DataError: the file is missing or damaged, or OpenML cannot be reached.
    """
    if data and (data / "pima").is_dir():
        path = data / "pima" / "pima.csv"
        where = str(path)
        frame = read_csv(_existing(path))
    else:
        where = "pima"
        features, target = openml.fetch("pima", "diabetes", 1, as_frame=True, files="pima/pima.csv")
        frame = pima_of_openml(features, target)
    _check_columns(where, frame, {*PIMA_COLUMNS, PIMA_TARGET})
    outcome = frame[PIMA_TARGET]
    if not outcome.isin([0, 1]).all():
        row = int((~outcome.isin([0, 1])).to_numpy().argmax())
        raise DataError(f"{where}: target 'outcome': expected 0 or 1, got {outcome.iloc[row]} in row {row + 1}")
    settings = {"target": PIMA_TARGET, "missing": dict.fromkeys(PIMA_MISSING, ("0",)), "units": PIMA_UNITS}
    source = frame_source(frame[[*PIMA_COLUMNS, PIMA_TARGET]], "pima", where, NA_TEXTS)
    table = make_table(source, config.model_copy(update=settings))
    return replace(table, remarks=(*table.remarks, PIMA_REMARK))


def adult(data: Path | None, config: FitConfig) -> Table:
    """48,842 persons of the census of 1994: does one earn more than 50,000 dollars a year? (UCI Adult).

    6 numeric and 8 categorical features, the published test split of 16,281 rows last. From OpenML (`adult`, version
    2) come the same rows in another order: the test split first, which is found by its first row and put last.

    Args:
        data: folder that may hold `adult/train.csv.gz` and `adult/test.csv.gz`; else it comes from OpenML.
        config: the settings; `min_category_rows` is used.

    Raises:
        DataError: a file is missing or damaged, or OpenML cannot be reached or has other rows.
    """
    columns = {*ADULT_NUMERIC, *ADULT_CATEGORICAL, ADULT_TARGET}
    if data and (data / "adult").is_dir():
        where = str(data / "adult")
        parts = []
        for part in ("train", "test"):
            path = data / "adult" / f"{part}.csv.gz"
            parts.append(read_csv(_existing(path)))
            _check_columns(str(path), parts[-1], columns)
        frame, test_rows = pd.concat(parts, ignore_index=True), len(parts[1])
    else:
        where, test_rows = "adult", ADULT_TEST_ROWS
        features, target = openml.fetch("adult", "adult", 2, as_frame=True, files="adult/{train,test}.csv.gz")
        frame = adult_of_openml(features, target)
        _check_columns(where, frame, columns)
    settings = {
        "target": ADULT_TARGET,
        "numeric": ADULT_NUMERIC,
        "categorical": ADULT_CATEGORICAL,
        "units": ADULT_UNITS,
    }
    order = [column for column in frame.columns if column in columns]
    return make_table(
        frame_source(frame[order], "adult", where, NA_TEXTS), config.model_copy(update=settings), test_rows=test_rows
    )


def pima_of_openml(features: pd.DataFrame, target: pd.Series) -> pd.DataFrame:
    """The columns of OpenML's `diabetes` under the names of `pima.csv`."""
    names = {theirs: ours for ours, theirs in PIMA_COLUMNS.items()}
    frame = features.rename(columns=names)
    return frame.assign(**{PIMA_TARGET: target.astype(str).map({"tested_negative": 0, "tested_positive": 1})})


def adult_of_openml(features: pd.DataFrame, target: pd.Series, test_rows: int = ADULT_TEST_ROWS) -> pd.DataFrame:
    """The columns of OpenML's `adult` under the names of `train.csv.gz`, and its rows in the same order.

    Args:
        features: as fetched.
        target: as fetched.
        test_rows: how many rows the published test split has.

    Raises:
        DataError: the test split is neither first nor last.
    """
    frame = features.rename(columns=lambda name: name.replace("-", "_"))
    frame = frame.assign(**{ADULT_TARGET: target.astype(str)})
    weights = frame["fnlwgt"].tolist() if "fnlwgt" in frame else []
    places = [place for place in (0, len(frame) - test_rows) if 0 <= place < len(weights)]
    first = next((place for place in places if weights[place] == FIRST_OF_ADULT_TEST), None)
    if first is None:
        raise DataError("adult: expected OpenML's rows with the published test split first or last, got another order")
    if first == 0:
        frame = pd.concat((frame.iloc[test_rows:], frame.iloc[:test_rows]), ignore_index=True)
    return frame


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: expected a file of the data set, got none there")
    return path


def _check_columns(where: str, frame: pd.DataFrame, columns: Collection[str]) -> None:
    lacking = sorted(set(columns) - set(frame.columns))
    if lacking:
        raise DataError(f"{where}: expected the columns {sorted(columns)}, got none of the name {lacking[0]!r}")
