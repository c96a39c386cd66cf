"""Pima and Adult: small files written in the published format, the layout of OpenML, and the real ones at hand."""

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from model.outputs import Task
from tests.training.tables import make_config
from training.config import FitConfig
from training.data.load import load
from training.data.table import split
from training.data.tabular import (
    ADULT_CATEGORICAL,
    ADULT_NUMERIC,
    FIRST_OF_ADULT_TEST,
    PIMA_COLUMNS,
    PIMA_MISSING,
    PIMA_UNITS,
    adult,
    adult_of_openml,
    pima,
    pima_of_openml,
)
from training.errors import DataError

DATA = os.environ.get("CHAINZRULE_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="the folder with pima/ and adult/: set CHAINZRULE_DATA")


def pima_frame(rows: int = 120) -> pd.DataFrame:
    """Random rows in the layout of `pima.csv`, a zero in every fifth cell."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({name: generator.integers(1, 90, rows) for name in PIMA_COLUMNS})
    frame["bmi"] = frame["bmi"] / 2 + 0.1
    frame = frame.mask(generator.random(frame.shape) < 0.2, 0)
    return frame.assign(outcome=generator.integers(0, 2, rows))


def adult_frame(rows: int, seed: int) -> pd.DataFrame:
    """Random rows in the layout of `train.csv.gz`, an empty cell in every tenth of the occupations."""
    generator = np.random.default_rng(seed)
    numeric = {name: generator.integers(1, 100_000, rows) for name in ADULT_NUMERIC}
    categorical = {name: generator.choice(["x", "y", "z"], rows) for name in ADULT_CATEGORICAL}
    frame = pd.DataFrame(numeric | categorical | {"income": generator.choice(["<=50K", ">50K"], rows)})
    frame.loc[generator.random(rows) < 0.1, "occupation"] = None
    return frame


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a small `pima/` and a small `adult/` of 200 training and 60 test rows."""
    for name in ("pima", "adult"):
        (tmp_path / name).mkdir()
    pima_frame().to_csv(tmp_path / "pima" / "pima.csv", index=False)
    for part, rows, seed in (("train", 200, 1), ("test", 60, 2)):
        adult_frame(rows, seed).to_csv(tmp_path / "adult" / f"{part}.csv.gz", index=False)
    return tmp_path


def test_pima_from_a_folder(data: Path) -> None:
    """A zero is missing in five of the eight columns, and a number in the others; the classes are those of the file."""
    table, frame = pima(data, make_config()), pima_frame()
    assert ("pima", Task.CLASSIFICATION, "outcome") == (table.name, table.task, table.target)
    assert tuple(PIMA_COLUMNS) == table.features
    assert ("0", "1") == table.classes
    assert "outcome 1: diabetes within five years; outcome 0: none" == table.remarks[-1]
    assert frame["outcome"].tolist() == table.y.tolist()
    assert set(PIMA_MISSING) == {column.name for column in table.columns if column.missing}
    assert {column.name: column.unit for column in table.columns if column.unit} == PIMA_UNITS
    values = frame[list(PIMA_COLUMNS)].astype(np.float64)
    for name in PIMA_MISSING:
        values[name] = values[name].replace(0, np.nan)
    np.testing.assert_array_equal(values.to_numpy(np.float32), table.x)


def test_adult_from_a_folder(data: Path) -> None:
    """Training rows first, the published test rows last; numbers, categories and gaps as they were written."""
    table = adult(data, make_config())
    frame = pd.concat((adult_frame(200, 1), adult_frame(60, 2)), ignore_index=True)
    assert ("adult", Task.CLASSIFICATION, "income", 60) == (table.name, table.task, table.target, table.test_rows)
    assert ("<=50K", ">50K") == table.classes
    assert (frame["income"] == ">50K").astype(int).tolist() == table.y.tolist()
    for k, column in enumerate(table.columns):
        assert (column.name in ADULT_CATEGORICAL, column.name == "occupation") == (column.categorical, column.missing)
        expected = frame[column.name]
        if column.categorical:
            expected = expected.map({"x": 0, "y": 1, "z": 2})
        np.testing.assert_array_equal(expected.to_numpy(np.float32), table.x[:, k])
    drawn = split(table, test_share=0.2, calibration_share=0.2, seed=0)
    assert list(range(200, 260)) == drawn.test.tolist()


def test_a_category_of_the_test_split_alone_is_other(data: Path) -> None:
    """The rare are taken together over both files: what `--min-category-rows` says holds here too."""
    frame = adult_frame(60, 2)
    frame.loc[:8, "race"] = "unseen"
    frame.to_csv(data / "adult" / "test.csv.gz", index=False)
    columns = {column.name: column for column in adult(data, make_config()).columns}
    assert (("x", "y", "z"), True) == (columns["race"].categories, columns["race"].other)
    columns = {column.name: column for column in adult(data, make_config(min_category_rows=9)).columns}
    assert (("unseen", "x", "y", "z"), False) == (columns["race"].categories, columns["race"].other)


@pytest.mark.parametrize("name", ["pima", "adult"])
def test_each_is_had_by_its_name(data: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By `--data` and by CHAINZRULE_DATA, the same table."""
    expected = load(FitConfig(dataset=name, data=data)).sha256()
    monkeypatch.setenv("CHAINZRULE_DATA", str(data))
    assert expected == load(FitConfig(dataset=name)).sha256()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pima", "pima: expected a folder with the file pima.csv of pima, got none"),
        ("adult", "adult: expected a folder with the files train.csv.gz and test.csv.gz of adult, got none"),
    ],
)
def test_missing_folder_is_refused(tmp_path: Path, name: str, message: str) -> None:
    """A folder that was named must hold the data set: nothing is fetched instead."""
    with pytest.raises(DataError) as caught:
        load(FitConfig(dataset=name, data=tmp_path))
    assert f"{tmp_path}/{message}" == str(caught.value)


@pytest.mark.parametrize(
    ("name", "file"), [("pima", "pima/pima.csv"), ("adult", "adult/train.csv.gz"), ("adult", "adult/test.csv.gz")]
)
def test_missing_file_is_refused(data: Path, name: str, file: str) -> None:
    """Each file is needed, and named where it is not there."""
    (data / file).unlink()
    with pytest.raises(DataError, match=f"{file}: expected a file of the data set, got none there"):
        load(FitConfig(dataset=name, data=data))


@pytest.mark.parametrize(
    ("name", "file", "column"),
    [
        ("pima", "pima/pima.csv", "bmi"),
        ("adult", "adult/train.csv.gz", "income"),
        ("adult", "adult/test.csv.gz", "sex"),
    ],
)
def test_missing_column_is_refused(data: Path, name: str, file: str, column: str) -> None:
    """A file that lacks a column is not the data set: the message names both."""
    pd.read_csv(data / file).drop(columns=column).to_csv(data / file, index=False)
    with pytest.raises(DataError, match=f"{file}: expected the columns .*, got none of the name '{column}'"):
        load(FitConfig(dataset=name, data=data))


@pytest.mark.parametrize("name", ["pima", "adult"])
def test_unreachable_openml_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without a folder and without a network: the message says which files would do instead."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))  # and nothing has been kept
    monkeypatch.delenv("CHAINZRULE_DATA", raising=False)
    with pytest.raises(DataError, match=f"^{name}: cannot fetch .* or give the folder that holds {name}/.* by --data$"):
        load(FitConfig(dataset=name))


def test_damaged_file_is_refused(data: Path) -> None:
    """A download that broke off is refused by name."""
    path = data / "adult" / "train.csv.gz"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"train\.csv\.gz: cannot read the table: "):
        load(FitConfig(dataset="adult", data=data))


def test_other_outcome_is_refused(data: Path) -> None:
    """An outcome is 0 or 1: the message has the first row that is neither."""
    frame = pima_frame()
    frame.loc[7, "outcome"] = 2
    frame.to_csv(data / "pima" / "pima.csv", index=False)
    with pytest.raises(DataError, match=r"pima\.csv: target 'outcome': expected 0 or 1, got 2 in row 8"):
        load(FitConfig(dataset="pima", data=data))


def test_pima_in_the_layout_of_openml() -> None:
    """Its short names and its words for the outcome become those of `pima.csv`."""
    frame = pima_frame()
    features = frame.drop(columns="outcome").rename(columns=PIMA_COLUMNS)
    target = frame["outcome"].map({0: "tested_negative", 1: "tested_positive"}).astype("category").rename("class")
    pd.testing.assert_frame_equal(frame, pima_of_openml(features, target))


@pytest.mark.parametrize("test_first", [True, False])
def test_adult_in_the_layout_of_openml(test_first: bool) -> None:
    """Its hyphens become underscores, and the published test split, told by its first row, comes last."""
    train, test = adult_frame(200, 1), adult_frame(60, 2)
    test.loc[0, "fnlwgt"] = FIRST_OF_ADULT_TEST
    theirs = pd.concat((test, train) if test_first else (train, test), ignore_index=True)
    features = theirs.drop(columns="income").rename(columns=lambda name: name.replace("_", "-"))
    ours = adult_of_openml(features, theirs["income"].astype("category"), test_rows=60)
    pd.testing.assert_frame_equal(pd.concat((train, test), ignore_index=True), ours, check_dtype=False)


def test_another_order_of_openml_is_refused() -> None:
    """Where the test split is neither first nor last, no split is made up."""
    frame = adult_frame(200, 1)
    with pytest.raises(DataError, match="adult: expected OpenML's rows with the published test split first or last"):
        adult_of_openml(frame.drop(columns="income"), frame["income"], test_rows=60)


@needs_data
def test_real_pima() -> None:
    """768 women, 268 of them with diabetes; 374 have no insulin, as is known of this table."""
    table = load(FitConfig(dataset="pima", data=Path(DATA or "")))
    assert ((768, 8), [500, 268]) == (table.x.shape, np.bincount(table.y).tolist())
    gaps = dict(zip(table.features, np.isnan(table.x).sum(axis=0).tolist(), strict=True))
    known = {"glucose": 5, "blood_pressure": 35, "skin_thickness": 227, "insulin": 374, "bmi": 11}
    assert known == {name: count for name, count in gaps.items() if count}


@needs_data
def test_real_adult() -> None:
    """32,561 and 16,281 persons; the first of the test split is the one that OpenML's rows are told by."""
    table = load(FitConfig(dataset="adult", data=Path(DATA or "")))
    assert ((48_842, 14), 16_281) == (table.x.shape, table.test_rows)
    assert [37_155, 11_687] == np.bincount(table.y).tolist()
    assert {"workclass", "occupation", "native_country"} == {column.name for column in table.columns if column.missing}
    assert ["native_country"] == [column.name for column in table.columns if column.other]
    weights = table.x[:, table.features.index("fnlwgt")]
    assert FIRST_OF_ADULT_TEST == weights[32_561]
    with gzip.open(Path(DATA or "") / "adult" / "test.csv.gz", "rt") as file:
        assert 16_282 == sum(1 for _ in file)
