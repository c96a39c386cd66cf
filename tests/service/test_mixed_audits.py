"""Audits of rows with categories and missing values: the same rows from every format, and every fault named."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from starlette.testclient import TestClient

from model import bundle
from model.manifest import Feature, Manifest
from model.outputs import Task
from service.audit.auditor import Options, audit
from service.audit.readers import csv as csv_reader
from service.audit.readers import parquet as parquet_reader
from service.audit.readers.batch import Batch, chunked
from service.audit.readers.data import open_reader
from service.audit.schemas import AuditReport
from service.errors import InvalidInputError
from tests.builders import Values, make_manifest, make_network
from tests.service.datasets import FORMATS, runtime, served, write
from tests.service.mixed import MODELS, NUMBERS, close, network, rows_of, sent, truth
from tests.service.support import ask, assert_problem
from tests.service.test_audit_api import MEDIA_TYPES, report_of

NAMES = [f"x{k}" for k in range(5)]
LABEL = "outcome"
EVERY = pytest.mark.parametrize("format_", FORMATS)
GOOD: list[Any] = [0.5, "3", 1.5, -1, "true"]


def encoded(format_: str, rows: list[list[Any]], labels: list[str] | None = None) -> bytes:
    """Rows as a person sends them, in a format; the label beside them as one more column."""
    names = [*NAMES, LABEL] if labels else NAMES
    whole = [[*row, label] for row, label in zip(rows, labels, strict=True)] if labels else rows
    if format_ == "csv":
        text = io.StringIO()
        csv.writer(text).writerows([names, *[["" if value is None else value for value in row] for row in whole]])
        return text.getvalue().encode()
    if format_ == "parquet":
        sink = pa.BufferOutputStream()
        columns = {name: [row[k] for row in whole] for k, name in enumerate(names)}
        parquet.write_table(pa.table(columns), sink, row_group_size=300)
        return bytes(sink.getvalue())
    objects = [dict(zip(names, row, strict=True)) for row in whole]
    if format_ == "ndjson":
        return b"".join(json.dumps(row).encode() + b"\n" for row in objects)
    return json.dumps({"instances": rows, **({"labels": labels} if labels else {})}).encode()


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Of a model with categories and missing values."""
    return make_manifest(network(Task.CLASSIFICATION))


def read(folder: Path, format_: str, content: bytes, manifest: Manifest, label: str | None = None) -> Batch:
    """All rows of a data set as one batch."""
    batches = chunked(open_reader(write(folder, format_, content), manifest, label), 10**9)
    (batch,) = (batch for batch in batches if len(batch.x))
    return batch


def refused(folder: Path, format_: str, content: bytes, manifest: Manifest) -> str:
    """What is said of a data set that is not as it should be."""
    with pytest.raises(InvalidInputError) as caught:
        read(folder, format_, content, manifest)
    return str(caught.value)


@EVERY
def test_a_format_gives_the_rows_that_the_graph_takes(tmp_path: Path, manifest: Manifest, format_: str) -> None:
    """Numbers to the bit, codes of categories, NaN for null or an empty field."""
    x = rows_of(Task.CLASSIFICATION, 700, seed=41)
    batch = read(tmp_path, format_, encoded(format_, sent(x)), manifest)
    assert batch.x.flags.c_contiguous
    np.testing.assert_array_equal(x, batch.x)


@EVERY
def test_labels_stand_beside_categories(tmp_path: Path, manifest: Manifest, format_: str) -> None:
    """As beside numbers."""
    x = rows_of(Task.CLASSIFICATION, 50, seed=42)
    labels = [f"class {k % 3}" for k in range(50)]
    label = None if format_ == "json" else LABEL
    batch = read(tmp_path, format_, encoded(format_, sent(x), labels), manifest, label)
    np.testing.assert_array_equal(x, batch.x)
    assert [k % 3 for k in range(50)] == (batch.labels if batch.labels is not None else np.empty(0)).tolist()


@pytest.mark.parametrize("format_", ["json", "ndjson", "parquet"])
@pytest.mark.parametrize(
    ("column", "codes"), [([3, 3, 3], [0, 0, 0]), ([3.0, 3.0, 3.0], [0, 0, 0]), ([True, True, True], [1, 1, 1])]
)
def test_categories_may_be_typed(
    tmp_path: Path, manifest: Manifest, format_: str, column: list[Any], codes: list[int]
) -> None:
    """A column of whole numbers or truth values holds the categories of those names."""
    rows = [[*GOOD[:1], value, *GOOD[2:]] for value in column]
    assert codes == read(tmp_path, format_, encoded(format_, rows), manifest).x[:, 1].tolist()


def test_categories_may_be_dictionaries(tmp_path: Path, manifest: Manifest) -> None:
    """As pandas writes them; what stands in the dictionary alone does not matter."""
    table = {
        "x0": [1.0, 2.0],
        "x1": pa.DictionaryArray.from_arrays(pa.array([1, 1], pa.int8()), ["not one", "true"]),
        "x2": pa.array([None, None]),
        "x3": [1, 2],
        "x4": pa.DictionaryArray.from_arrays(pa.array([None, 0], pa.int8()), ["3"]),
    }
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(table), sink)
    x = read(tmp_path, "parquet", bytes(sink.getvalue()), manifest).x
    expected = [[1, 1, np.nan, 1, np.nan], [2, 1, np.nan, 2, 0]]
    np.testing.assert_array_equal(np.array(expected, np.float32), x)


def test_wide_row_groups_are_read_by_columns(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the scratch file, with the same codes and missing values."""
    monkeypatch.setattr(parquet_reader, "COLUMN_BYTES", 1)
    x = rows_of(Task.CLASSIFICATION, 700, seed=43)
    np.testing.assert_array_equal(x, read(tmp_path, "parquet", encoded("parquet", sent(x)), manifest).x)


def test_lists_of_numbers_may_have_gaps(tmp_path: Path) -> None:
    """Of a model without categories, where a number may be missing, and nowhere else."""
    common: dict[str, Any] = {"minimum": 0, "maximum": 1, "mean": 0, "scale": 1}
    features = (
        Feature(name="x0", **common),
        Feature(name="x1", **common),
        Feature(name="x2", **common, missing=True, imputed=0.5),
    )
    manifest = make_manifest(make_network(features=3)).model_copy(update={"features": features})
    for type_ in (pa.list_(pa.float64()), pa.list_(pa.float32(), 3)):
        for rows, error in (([[1, 2, None], [1, 2, 3]], None), ([[1, 2, 3], [1, None, 3]], "row 1, column 'x1'")):
            sink = pa.BufferOutputStream()
            parquet.write_table(pa.table({"row": pa.array(rows, type_)}), sink)
            if error is None:
                found = read(tmp_path, "parquet", bytes(sink.getvalue()), manifest).x
                np.testing.assert_array_equal(np.array([[1, 2, np.nan], [1, 2, 3]], np.float32), found)
            else:
                assert error in refused(tmp_path, "parquet", bytes(sink.getvalue()), manifest)


@EVERY
@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (1, "4", "expected one of the categories '3', 'true', 'Rot, \"tief\"', got the string '4'"),
        (1, "tru", "got the string 'tru' (did you mean 'true'?)"),
        (1, None, "expected one of the categories '3', 'true', 'Rot, \"tief\"', got {nothing}"),
        (0, None, "expected a number, got {nothing}"),
        (3, None, "expected a number, got {nothing}"),
    ],
)
def test_faults_name_row_and_column(
    tmp_path: Path, manifest: Manifest, format_: str, place: int, value: Any, expected: str
) -> None:
    """In every format, with what was expected and what came."""
    rows = [list(GOOD) for _ in range(400)]
    rows[317][place] = value
    nothing = "nothing" if format_ == "csv" else "null (missing values are not taken here)"
    message = refused(tmp_path, format_, encoded(format_, rows), manifest)
    assert expected.format(nothing=nothing) in message
    assert "317" in message
    assert f"x{place}" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n/a", "expected a number, or an empty field where it is missing, got the string 'n/a'"),
        ("nan", "expected a number, or an empty field where it is missing, got the string 'nan'"),
        ("1e39", "expected a number within ±3.403e+38 (float32), got 1e+39"),
    ],
)
def test_only_an_empty_field_is_missing_in_csv(tmp_path: Path, manifest: Manifest, text: str, expected: str) -> None:
    """Whatever a program writes in place of nothing: training may have taken it for something else."""
    rows = [list(GOOD), [*GOOD[:2], None, *GOOD[3:]], [*GOOD[:2], text, *GOOD[3:]]]
    message = refused(tmp_path, "csv", encoded("csv", rows), manifest)
    assert f"row 2 (line 4), column 'x2': {expected}" == message


@EVERY
def test_texts_stand_for_a_missing_number(tmp_path: Path, manifest: Manifest, format_: str) -> None:
    """A text that stood for one in training does so in every format; another is refused with its row."""
    features = list(manifest.features)
    features[2] = features[2].model_copy(update={"missing_values": ("?", "NA", "-1")})
    marked = manifest.model_copy(update={"features": tuple(features)})
    sent_values = ["?", "NA", None, "2.5", "-1"] if format_ in {"csv", "parquet"} else ["?", "NA", None, 2.5, -1]
    rows = [[*GOOD[:2], value, *GOOD[3:]] for value in sent_values]
    x = read(tmp_path, format_, encoded(format_, rows), marked).x
    np.testing.assert_array_equal(np.array([np.nan, np.nan, np.nan, 2.5, -1], np.float32), x[:, 2])
    rows[3][2] = "many"
    message = refused(tmp_path, format_, encoded(format_, rows[:4]), marked)
    assert "expected a number, or " in message
    assert "got the string 'many'" in message
    assert "row 3" in message or "/3/" in message


def test_dictionaries_of_texts_stand_for_numbers(tmp_path: Path, manifest: Manifest) -> None:
    """Where a text may stand for a missing number, the others are numbers; what no row has does not matter."""
    features = list(manifest.features)
    features[2] = features[2].model_copy(update={"missing_values": ("?",)})
    marked = manifest.model_copy(update={"features": tuple(features)})
    numbers = pa.DictionaryArray.from_arrays(pa.array([1, 0, None], pa.int8()), ["?", " 2.5", "none has it"])
    sink = pa.BufferOutputStream()
    table = {"x0": [1.0] * 3, "x1": ["3"] * 3, "x2": numbers, "x3": [1] * 3, "x4": ["3"] * 3}
    parquet.write_table(pa.table(table), sink)
    x = read(tmp_path, "parquet", bytes(sink.getvalue()), marked).x
    np.testing.assert_array_equal(np.array([2.5, np.nan, np.nan], np.float32), x[:, 2])


def test_a_block_of_csv_with_such_texts_is_read_at_once(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not make an audit slow: no row is read value by value."""
    features = list(manifest.features)
    features[2] = features[2].model_copy(update={"missing_values": ("?", "-1")})
    marked = manifest.model_copy(update={"features": tuple(features)})
    monkeypatch.delattr(csv_reader.CsvReader, "_slow")
    rows = [[*GOOD[:2], value, *GOOD[3:]] for value in ("?", " 1.5", "", "-1")]
    x = read(tmp_path, "csv", encoded("csv", rows), marked).x
    np.testing.assert_array_equal(np.array([np.nan, 1.5, np.nan, -1], np.float32), x[:, 2])


@EVERY
def test_truth_values_may_be_spelled_otherwise(tmp_path: Path, manifest: Manifest, format_: str) -> None:
    """A table that pandas wrote has True and False."""
    features = list(manifest.features)
    features[1] = features[1].model_copy(update={"categories": ("false", "true")})
    made = manifest.model_copy(update={"features": tuple(features)})
    rows = [[GOOD[0], value, *GOOD[2:]] for value in ("True", "False", "TRUE", "false")]
    assert [1, 0, 1, 0] == read(tmp_path, format_, encoded(format_, rows), made).x[:, 1].tolist()


def test_nan_is_not_missing_in_parquet(tmp_path: Path, manifest: Manifest) -> None:
    """Null is; a NaN that was computed must not pass for a value that was not there."""
    rows = [list(GOOD), [*GOOD[:2], None, *GOOD[3:]], [*GOOD[:2], float("nan"), *GOOD[3:]]]
    message = refused(tmp_path, "parquet", encoded("parquet", rows), manifest)
    assert "row 2, column 'x2': expected a number, or null where it is missing, got NaN" == message


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("x1", pa.array([None, None]), "column 'x1': expected texts of categories, got values of type null"),
        ("x1", pa.array([b"3", b"3"]), "column 'x1': expected texts of categories, got values of type binary"),
        ("x0", pa.array(["1", "2"]), "column 'x0': expected numbers, got values of type string"),
        ("x0", pa.array([None, None]), "column 'x0': expected numbers, got values of type null"),
    ],
)
def test_columns_of_other_types_are_refused(
    tmp_path: Path, manifest: Manifest, name: str, values: Any, message: str
) -> None:
    """Before a row is read."""
    table = {"x0": [1.0, 2.0], "x1": ["3", "3"], "x2": [1.0, 2.0], "x3": [1, 2], "x4": ["3", "3"], name: values}
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(table), sink)
    assert message == refused(tmp_path, "parquet", bytes(sink.getvalue()), manifest)


def report(folder: Path, repository: Path, task: Task, format_: str, x: Values) -> AuditReport:
    """An audit of rows."""
    (path,) = (repository / MODELS[task]).iterdir()
    data = write(folder, format_, encoded(format_, sent(x)))
    return audit(served(path), runtime().execution, data, Options(worst=5, top_features=9))


@EVERY
@pytest.mark.parametrize("task", list(Task))
def test_an_audit_tells_of_numbers_that_are_there(
    tmp_path: Path, mixed_repository: Path, task: Task, format_: str
) -> None:
    """Norms as torch has them; of the worst rows the numeric features that are there, however many are asked for."""
    x = rows_of(task, 300, seed=44)
    outputs = truth(task, x)
    told = report(tmp_path, mixed_repository, task, format_, x)
    norms = outputs["gradient_norm"]
    assert told.gradient_norm is not None
    assert close(norms.max(), told.gradient_norm.maximum)
    assert close(norms.astype(np.float64).mean(), told.gradient_norm.mean)
    assert close(-np.sort(-norms)[:5], [row.gradient_norm for row in told.worst])
    for row in told.worst:
        there = {f"x{place}" for place in NUMBERS if not np.isnan(x[row.row, place])}
        assert there == {feature.feature for feature in row.features}
        for feature in row.features:
            assert close(outputs["gradient"][row.row, int(feature.feature[1:])], feature.gradient)


@EVERY
def test_an_audit_over_http(mixed_client: TestClient, format_: str) -> None:
    """The report of rows in each format; of a row that is not taken, what is wrong and where."""
    task = Task.ORDINAL
    path = f"/v1/models/{MODELS[task]}/audit"
    headers = {"content-type": MEDIA_TYPES[format_]}
    rows = sent(rows_of(task, 60, seed=45))
    answer = ask(mixed_client, "POST", path, content=encoded(format_, rows), headers=headers)
    assert 60 == report_of(answer).rows
    rows[7][1] = "nothing like it"
    answer = ask(mixed_client, "POST", path, content=encoded(format_, rows), headers=headers)
    assert_problem(answer, 422, "invalid-input", "7", "x1", "expected one of the categories", "'nothing like it'")


def test_a_bundle_is_read_with_its_categories(mixed_repository: Path) -> None:
    """As it was written."""
    for task, name in MODELS.items():
        read = bundle.read(mixed_repository / name / "1")
        assert make_manifest(network(task)).features == read.manifest.features
