"""What the estimators do with a user's columns: the same as reading a table to train on does, and the same refusals."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold, cross_val_score

from tests.training.samples import QUICK, numbers, people
from training.api import load
from training.config import FitConfig
from training.errors import DataError
from training.estimators.advice import in_python
from training.estimators.base import CREstimator
from training.estimators.classifier import CRClassifier
from training.estimators.columns import Columns
from training.estimators.regressor import CRRegressor

ROWS = 60
MOST: dict[str, Any] = QUICK | {"epochs": 1, "calibration_share": 0.0}
"""Settings for what is told before the training."""


@pytest.fixture(scope="module")
def fitted() -> CRClassifier:
    """A classifier that has learned the table of people."""
    return CRClassifier(**QUICK).fit(*people())


def test_text_is_a_category_and_nan_is_missing(fitted: CRClassifier) -> None:
    """Columns of text, numbers with gaps and rare categories are learned from as they come."""
    age, city, income = fitted._columns.columns
    assert (False, True) == (age.categorical, age.missing)
    assert (("Bonn", "Kiel"), True, False) == (city.categories, city.other, city.missing)
    assert (False, False) == (income.categorical, income.missing)
    frame, outcome = people(seed=1)
    assert fitted.score(frame, outcome) > 0.85
    assert ["age", "city", "income"] == fitted.feature_names_in_.tolist()


def test_unknown_category_is_other_where_rare_ones_were(fitted: CRClassifier) -> None:
    """A city that no row had is answered like those that few rows had."""
    frame, _ = people()
    rare = fitted.predict_proba(frame.head(1).assign(city="Hof"))
    assert np.array_equal(rare, fitted.predict_proba(frame.head(1).assign(city="Ulm")))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("age", "old", "X: column 'age': expected numbers, as in the rows of fit, got 'old' in row 1"),
        ("income", np.nan, r"X: column 'income': expected a value .* in row 1; unseen_missing='impute' takes them"),
        ("city", np.nan, "X: column 'city': expected a value in every row"),
        ("age", np.inf, "X: column 'age': expected numbers within float32, got inf in row 1"),
        ("age", 1e39, "X: column 'age': expected numbers within float32, got 1e.39 in row 1"),
    ],
    ids=["text", "missing number", "missing category", "infinite", "beyond float32"],
)
def test_rows_unlike_those_of_fit_are_refused(fitted: CRClassifier, column: str, value: object, message: str) -> None:
    """What no training row had: the message names the column and the row."""
    frame, _ = people()
    with pytest.raises(ValueError, match=message):
        fitted.predict(frame.head(1).assign(**{column: pd.Series([value])}))


def test_unknown_category_is_refused_where_none_is_rare() -> None:
    """With every category seen often there is nothing to answer a further one by."""
    frame, outcome = people()
    model = CRClassifier(**QUICK | {"epochs": 2}).fit(frame[4:], outcome[4:])
    with pytest.raises(
        ValueError,
        match=r"X: column 'city': expected one of the categories 'Bonn', 'Kiel', as in .*, got 'Ulm' in row 1; "
        "unseen_category='impute' takes it for the most frequent one",
    ):
        model.predict(frame.head(1).assign(city="Ulm"))


def test_unseen_category_is_the_most_frequent_where_it_may_be() -> None:
    """With unseen_category='impute' it is answered like that of most training rows; a missing one is still refused."""
    frame, outcome = people()
    seen = frame[4:].reset_index(drop=True)
    seen["city"] = np.where(np.arange(len(seen)) % 3 == 0, "Bonn", "Kiel")
    model = CRClassifier(**QUICK | {"epochs": 5}, unseen_category="impute").fit(seen, outcome[4:])
    unseen, most, least = (model.predict_proba(frame.assign(city=city)) for city in ("Ulm", "Kiel", "Bonn"))
    assert np.array_equal(most, unseen)
    assert not np.array_equal(least, unseen)
    with pytest.raises(ValueError, match=r"column 'city': expected a value .* unseen_missing='impute' takes them"):
        model.predict(frame.assign(city=None))


def test_most_frequent_category_is_told_by_the_training_rows() -> None:
    """By the rows that are given, not all of `fit`; of as frequent ones it is the first, and NaN counts for nothing."""
    frame = pd.DataFrame({"kind": ["a", "a", "a", "b", "b", None], "size": range(6)})
    columns = Columns.learn(frame, FitConfig(dataset="X", min_category_rows=1), unseen_missing=False)
    rows = columns.encode(frame)
    asked = pd.DataFrame({"kind": ["c", "b", None], "size": 0})
    for part, first in ((rows, 0.0), (rows[2:], 1.0), (rows[1:5], 0.0)):
        imputed = columns.imputing(part).encode(asked)[:, 0]
        np.testing.assert_array_equal(imputed, [first, 1.0, np.nan])


def test_category_that_one_fold_alone_has() -> None:
    """A rare category that no training row of a fold has: no score by default, one with unseen_category='impute'."""
    frame, outcome = people(120)
    frame["city"] = np.where(np.arange(120) < 2, "Ulm", np.where(np.arange(120) % 2 == 0, "Bonn", "Kiel"))
    settings = QUICK | {"epochs": 2, "min_category_rows": 1}
    with pytest.raises(ValueError, match="got 'Ulm' in row 1; unseen_category='impute'"):
        cross_val_score(CRClassifier(**settings), frame, outcome, cv=KFold(3), error_score="raise")
    scores = cross_val_score(CRClassifier(**settings, unseen_category="impute"), frame, outcome, cv=KFold(3))
    assert np.isfinite(scores).all()


def test_unseen_missing_value_is_the_mean_where_it_may_be() -> None:
    """With unseen_missing='impute' a gap that training never saw is answered like the mean of the training rows."""
    x, y = numbers(60)
    model = CRRegressor(**QUICK, unseen_missing="impute").fit(x, y)
    gap, mean = x[:1].copy(), x[:1].copy()
    gap[0, 1], mean[0, 1] = np.nan, x[:, 1].mean()
    np.testing.assert_allclose(model.predict(gap), model.predict(mean), rtol=1e-5)


def test_numbers_may_be_categories() -> None:
    """Columns named by `categorical` are one-hot: by place in an array, by name in a DataFrame."""
    generator = np.random.default_rng(0)
    x = np.column_stack((generator.standard_normal(90), generator.integers(0, 3, 90)))
    y = np.array([5.0, -5.0, 5.0])[x[:, 1].astype(int)]
    by_place = CRRegressor(**QUICK, categorical=[1]).fit(x, y)
    assert ("0", "1", "2") == by_place._columns.columns[1].categories
    frame = pd.DataFrame(x, columns=["width", "kind"])
    by_name = CRRegressor(**QUICK, categorical=["kind"]).fit(frame, y)
    assert np.array_equal(by_place.predict(x), by_name.predict(frame))
    with pytest.raises(ValueError, match=r"categorical: expected columns of \['width', 'kind'\], got 'sort'"):
        CRRegressor(**QUICK, categorical=["sort"]).fit(frame, y)
    with pytest.raises(ValueError, match="categorical: expected places from 0 to 1, got 2"):
        CRRegressor(**QUICK, categorical=[2]).fit(x, y)


# As a table is read

PLACES = np.arange(ROWS)
OF_EACH_KIND = pd.DataFrame(
    {
        "whole": PLACES % 7,
        "real": np.where(PLACES % 5 == 0, np.nan, PLACES / 3),
        "nullable": pd.array([place if place % 4 else None for place in PLACES.tolist()], dtype="Int64"),
        "decimal text": [f"{place / 4}" for place in PLACES],
        "objects": pd.Series([*PLACES[:-1].tolist(), None], dtype=object),
        "truth": PLACES % 2 == 0,
        "truth text": np.where(PLACES % 3 == 0, "TRUE", "False"),
        "text": np.where(PLACES % 3 == 0, " ", np.where(PLACES % 2 == 0, "Bonn", "Kiel")),
        "rare": np.where(PLACES < 3, "Hof", np.where(PLACES % 2 == 0, "Bonn", "Kiel")),
        "ordered": pd.Categorical(np.array(["low", "high"])[PLACES % 2], ["low", "high"], ordered=True),
        "numbered": pd.Categorical(PLACES % 3),
        "mixed": pd.Series([place if place % 2 else "odd" for place in (PLACES % 4).tolist()], dtype=object),
    }
)


@pytest.mark.parametrize("settings", [{}, {"categorical": ["whole"], "min_category_rows": 5}], ids=["default", "set"])
def test_columns_are_read_as_in_a_table(settings: dict[str, Any]) -> None:
    """Of every type that a DataFrame may hold: the same kinds, categories and raw rows as `training.fit` has."""
    target = np.sin(PLACES)
    table = load(OF_EACH_KIND.assign(target=target), "target", **settings)
    columns = CRRegressor(**MOST | settings).fit(OF_EACH_KIND, target)._columns
    assert table.columns == columns.columns
    np.testing.assert_array_equal(table.x, columns.encode(OF_EACH_KIND))


@pytest.mark.parametrize(
    "values",
    [
        [f"person {place}" for place in PLACES],
        pd.date_range("1990-01-01", periods=ROWS),
        [f"1990-01-{1 + place % 28:02}" for place in PLACES],
        pd.Series(pd.date_range("1990-01-01", periods=ROWS)).dt.date,
        [None] * ROWS,
        [np.nan] * ROWS,
        [[1, 2]] * ROWS,
        np.where(PLACES == 7, np.inf, PLACES),
        1e12 + PLACES,
        [f"city {place % 15}" for place in PLACES],
        [*map(str, PLACES[:-1]), "many"],
        pd.Categorical(pd.date_range("1990-01-01", periods=ROWS)),
    ],
    ids=[
        *("identifier", "dates", "texts of dates", "objects of dates", "nothing", "missing", "lists", "infinite"),
        *("beyond float32's digits", "rare categories alone", "numbers but one", "categories of dates"),
    ],
)
def test_columns_are_refused_as_in_a_table(values: Any) -> None:
    """What cannot be learned from: the finding of `training.fit`, about X; the advice names no flag."""
    frame = OF_EACH_KIND[["whole"]].assign(odd=values)
    with pytest.raises(DataError) as expected:
        load(frame.assign(target=PLACES % 2), "target")
    with pytest.raises(ValueError, match=r"^X: ") as caught:
        CRClassifier(**MOST).fit(frame, PLACES % 2)
    finding, *advice = str(caught.value).removeprefix("X: ").split("; ")
    assert str(expected.value).removeprefix("DataFrame: ").split("; ")[0] == finding
    assert all("--" not in said for said in advice)


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        ([None] * ROWS, "leave it out of X"),
        (pd.date_range("1990-01-01", periods=ROWS), "name the column in categorical=[…], or leave it out of X"),
        ([f"city {place % 15}" for place in PLACES], "leave it out of X, or lower min_category_rows"),
        (
            [*map(str, PLACES[:-1]), "many"],
            "write NaN for that text if it stands for a missing value, or leave it out of X",
        ),
        ([f"{place:03}" for place in PLACES], "leave it out of X, or turn it into numbers"),
        ([f"{place},5" for place in PLACES % 30], "or name the column in categorical=[…], or leave it out of X"),
    ],
    ids=["nothing", "dates", "rare", "text among numbers", "codes", "commas"],
)
def test_advice_is_what_a_caller_can_do(values: Any, advice: str) -> None:
    """About X and parameters: an estimator has no flags, and none that leaves columns out."""
    name = "odd --drop 'one'"
    with pytest.raises(ValueError, match=r"^X: column ") as caught:
        CRClassifier(**MOST).fit(OF_EACH_KIND[["whole"]].assign(**{name: values}), PLACES % 2)
    message = str(caught.value)
    assert message.startswith(f"X: column {name!r}: expected ")
    assert advice in message
    assert "--" not in message.replace(name, "")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("got '--bound' in row 1; leave it out with --drop a,b", "got '--bound' in row 1; leave it out of X"),
        (
            "leave it out with --drop 'it'\"'\"'s one', or raise --min-category-rows",
            "leave it out of X, or raise min_category_rows",
        ),
        ("float32's; try a lower --learning-rate, a --bound", "float32's; try a lower learning_rate, a bound"),
    ],
)
def test_what_is_quoted_is_said_as_it_is(message: str, said: str) -> None:
    """Cells and names may look like flags; columns are spelled as a shell would have them."""
    assert said == in_python(message)


def test_columns_need_names_of_their_own() -> None:
    """As in a table: twice the same, or none but blanks."""
    frame, outcome = people()
    for names, got in ((["age", "city", "city"], r"\['city'\]"), (["age", "city", " "], r"\['age', 'city', ' '\]")):
        with pytest.raises(ValueError, match=f"X: expected columns with names of their own, got {got}"):
            CRClassifier(**MOST).fit(frame.set_axis(names, axis=1), outcome)


def test_column_that_a_fold_leaves_without_change() -> None:
    """Rare levels as columns of 0 and 1, or of truth values, are the same in every row of some folds: no refusal."""
    x, y = numbers(90)
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(number=0, truth=False, text="usual")
    frame.loc[:20, ["number", "truth", "text"]] = 1, True, "rare"
    assert np.isfinite(cross_val_score(CRRegressor(**QUICK | {"epochs": 2}), frame, y, cv=4, error_score="raise")).all()


def test_truth_values_are_known_however_they_are_spelled() -> None:
    """Learned from texts, asked in truth values, and in another spelling."""
    frame = pd.DataFrame({"truth": np.where(PLACES % 2 == 0, "False", "True"), "number": PLACES % 3})
    model = CRRegressor(**QUICK).fit(frame, PLACES % 2)
    asked = (True, False), ("TRUE", "false")
    answers = [model.predict(pd.DataFrame({"truth": [yes, no], "number": 1})) for yes, no in asked]
    assert np.array_equal(answers[0], answers[1])
    assert answers[0][1] < 0.2 < 0.8 < answers[0][0]


def test_categories_alone_are_refused() -> None:
    """Without a number there is nothing to take a gradient by."""
    with pytest.raises(ValueError, match="X: expected a numeric feature, by which the sensitivity is taken"):
        CRRegressor(**MOST).fit(OF_EACH_KIND[["truth", "rare"]], PLACES)


# What else a caller may get wrong


@pytest.mark.parametrize("columns", ["kind", ["kind"], ("kind",), pd.Index(["kind"])])
def test_one_column_or_several_may_be_categorical(columns: Any) -> None:
    """One name stands for a list of it, as in the settings of `training.fit`."""
    frame = pd.DataFrame({"width": PLACES / 3, "kind": PLACES % 3})
    model = CRRegressor(**MOST, categorical=columns).fit(frame, PLACES)
    assert [False, True] == [column.categorical for column in model._columns.columns]
    mask: Any = np.array([False, True])
    with pytest.raises(ValueError, match=r"categorical: expected columns of \['width', 'kind'\], got np.False_"):
        CRRegressor(**MOST, categorical=mask).fit(frame, PLACES)


def test_array_of_texts_is_refused_with_advice() -> None:
    """Only a DataFrame says which columns are texts."""
    frame, outcome = people()
    with pytest.raises(
        ValueError, match="X: expected numbers, or a DataFrame, whose texts are categories, got ndarray"
    ):
        CRClassifier(**MOST).fit(frame.to_numpy(), outcome)


def test_no_rows_and_no_columns_are_refused(fitted: CRClassifier) -> None:
    """Of a DataFrame, as scikit-learn does of arrays."""
    frame, outcome = people()
    with pytest.raises(ValueError, match="X: expected at least one row, got none"):
        fitted.predict(frame[:0])
    with pytest.raises(ValueError, match="1 sample"):
        CRClassifier(**MOST).fit(frame[:1], outcome[:1])
    with pytest.raises(ValueError, match="X: expected at least one column, got none"):
        CRClassifier(**MOST).fit(frame[[]], outcome)


def test_missing_class_is_refused() -> None:
    """The message counts them, and gives the first row."""
    frame, outcome = people()
    with pytest.raises(ValueError, match="y: expected a value in every row, got 2 missing, the first in row 4"):
        CRClassifier(**MOST).fit(frame, outcome.where(~outcome.index.isin([3, 9])))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            pd.Timestamp("2020-01-01"),
            "X: column 'age': expected numbers, as in the rows of fit, got the type timestamp",
        ),
        ([1, 2], "X: column 'age': expected numbers, as in the rows of fit, got the type list"),
    ],
)
def test_types_unlike_those_of_fit_are_refused(fitted: CRClassifier, value: object, message: str) -> None:
    """A column that has become one of dates or of lists."""
    frame, _ = people()
    with pytest.raises(ValueError, match=message):
        fitted.predict(frame.head(1).assign(age=pd.Series([value])))


def test_what_the_tasks_share_is_no_estimator() -> None:
    """Targets are read by the tasks alone."""
    with pytest.raises(TypeError, match="abstract"):
        CREstimator()
