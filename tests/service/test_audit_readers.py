"""Readers of data sets: the same rows from every format, every fault named, memory bounded."""

import csv
import io
import json
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from model.manifest import Manifest
from model.outputs import Task
from service.audit.readers import csv as csv_reader
from service.audit.readers import ndjson, scan, texts
from service.audit.readers import parquet as parquet_reader
from service.audit.readers.batch import Batch, chunked
from service.audit.readers.data import Data, open_reader
from service.errors import InvalidInputError, MalformedBodyError, TooLargeError
from service.features import Features
from service.v1.instances import rows_to_array
from tests.builders import Values, make_manifest, make_network
from tests.service.datasets import FORMATS, LABEL, columns, encoded, plain_manifest, write

ODD = [0.1, 1e-45, -1e-45, 3.4028234e38, -3.4028234e38, 16777217.0, 1 / 3, 0.0, -0.0, 123456789.123456789]
"""Numbers that a float32 holds, some after rounding."""
EVERY = pytest.mark.parametrize("format_", FORMATS)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
CLASSES = [f"class {k}" for k in range(4)]


def odd_rows(count: int, features: int = 5, seed: int = 0) -> Values:
    """Rows of such numbers as float64."""
    return np.random.default_rng(seed).choice(ODD, (count, features))


def read(data: Data, manifest: Manifest | None = None, label: str | None = None) -> Batch:
    """All rows of a data set as one batch."""
    batches = chunked(open_reader(data, manifest or plain_manifest(), label), 10**9)
    (batch,) = (batch for batch in batches if len(batch.x))
    return batch


def refused(folder: Path, format_: str, content: bytes, label: str | None = None) -> str:
    """What is said of a data set that is not as it should be; of InvalidInputError only."""
    with pytest.raises(InvalidInputError) as caught:
        read(write(folder, format_, content), label=label)
    return str(caught.value)


def table(**changed: Any) -> bytes:
    """A Parquet file of three rows of ones, with some columns changed; None leaves one out."""
    whole = {**{f"x{k}": [1.0] * 3 for k in range(5)}, **changed}
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({name: values for name, values in whole.items() if values is not None}), sink)
    return bytes(sink.getvalue())


# The same rows from every format


@EVERY
def test_a_format_gives_the_rows_of_a_prediction_request(tmp_path: Path, format_: str) -> None:
    """Bit by bit what the prediction path makes of the same numbers, odd ones included."""
    x = odd_rows(700)
    expected = rows_to_array(x.tolist(), Features.of(plain_manifest()))
    batch = read(write(tmp_path, format_, encoded(format_, x)))
    assert expected.tobytes() == batch.x.tobytes()
    assert (np.dtype(np.float32), True) == (batch.x.dtype, batch.x.flags.c_contiguous)
    assert batch.labels is None


@EVERY
@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.lists(FLOATS, min_size=5, max_size=5), min_size=1, max_size=4))
def test_every_float32_survives(
    tmp_path_factory: pytest.TempPathFactory, format_: str, values: list[list[float]]
) -> None:
    """Whatever float32 there is comes back as it was."""
    x = np.array(values, np.float32)
    batch = read(write(tmp_path_factory.mktemp("rows"), format_, encoded(format_, x)))
    assert x.tobytes() == batch.x.tobytes()


@EVERY
def test_labels_come_with_their_rows(tmp_path: Path, format_: str) -> None:
    """As the places of the classes; in JSON beside the rows, elsewhere as a column of a name."""
    x, places = odd_rows(600), np.random.default_rng(1).integers(0, 4, 600)
    content = encoded(format_, x, [CLASSES[k] for k in places])
    reader = open_reader(write(tmp_path, format_, content), plain_manifest(), None if format_ == "json" else LABEL)
    batches = list(chunked(reader, 256))
    assert [256, 256, 88] == [len(batch.x) for batch in batches]
    assert places.tolist() == [label for batch in batches if batch.labels is not None for label in batch.labels]
    assert ("labels" if format_ == "json" else LABEL) == reader.label


@EVERY
def test_labels_of_a_regression_are_numbers(tmp_path: Path, format_: str) -> None:
    """The target's values, in float64."""
    manifest = make_manifest(make_network(Task.REGRESSION))
    targets = [0.1, -2.5, 3.0, 1e300]
    content = encoded(format_, odd_rows(4), targets)
    batch = read(write(tmp_path, format_, content), manifest, None if format_ == "json" else LABEL)
    assert batch.labels is not None
    assert targets == batch.labels.tolist()


@pytest.mark.parametrize("format_", ["json", "ndjson"])
def test_rows_may_be_objects(tmp_path: Path, format_: str) -> None:
    """By the names of the features, with the label as a further key."""
    x = odd_rows(300)
    content = encoded(format_, x, ["class 2"] * 300, objects=True)
    batch = read(write(tmp_path, format_, content), label=LABEL)
    assert rows_to_array(x.tolist(), Features.of(plain_manifest())).tobytes() == batch.x.tobytes()
    assert batch.labels is not None
    assert [2.0] * 300 == batch.labels.tolist()


def test_columns_may_be_in_any_order_and_further_ones_are_named(tmp_path: Path) -> None:
    """In CSV, Parquet and NDJSON; JSON refuses them, as a prediction request does."""
    x = odd_rows(50)
    mixed = {"note": ["a, b"] * 50, **dict(reversed(columns(x).items())), "when": [7] * 50}
    lines = [
        dict(zip(mixed, row, strict=True)) for row in zip(*(list(values) for values in mixed.values()), strict=True)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(mixed))
    writer.writeheader()
    writer.writerows(lines)
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(mixed), sink)
    contents = {
        "csv": text.getvalue().encode(),
        "parquet": bytes(sink.getvalue()),
        "ndjson": b"\n".join(json.dumps(line).encode() for line in lines),
    }
    for format_, content in contents.items():
        reader = open_reader(write(tmp_path, format_, content), plain_manifest(), None)
        (batch,) = chunked(reader, 1000)
        assert rows_to_array(x.tolist(), Features.of(plain_manifest())).tobytes() == batch.x.tobytes()
        assert {"note", "when"} == set(reader.ignored)
    message = refused(tmp_path, "json", json.dumps({"instances": lines}).encode())
    assert "'note'" in message


def test_a_feature_name_may_be_odd(tmp_path: Path) -> None:
    """Points, commas, quotes and line feeds in the name of a column."""
    names = ["a.b", "a,b", 'say "a"', "a\nb", " a"]
    manifest = plain_manifest()
    features = tuple(f.model_copy(update={"name": name}) for f, name in zip(manifest.features, names, strict=True))
    manifest = manifest.model_copy(update={"features": features})
    x = odd_rows(20)
    text = io.StringIO()
    csv.writer(text).writerows([names, *x.tolist()])
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(dict(zip(names, x.T, strict=True))), sink)
    for format_, content in (("csv", text.getvalue().encode()), ("parquet", bytes(sink.getvalue()))):
        batch = read(write(tmp_path, format_, content), manifest)
        assert rows_to_array(x.tolist(), Features.of(manifest)).tobytes() == batch.x.tobytes()


@pytest.mark.parametrize(
    ("given_as", "classes", "place"),
    [("3", ("3", "4"), 0), (4, ("3", "4"), 1), (4.0, ("3", "4"), 1), ("4.0", ("3", "4"), 1), (" 3 ", ("3", "4"), 0),
     (True, ("no", "true"), 1), (False, ("False", "True"), 0), (2.5, ("2.5", "3"), 0), (Decimal(4), ("3", "4"), 1)],
)  # fmt: skip
def test_a_label_may_be_written_as_tables_do(
    tmp_path: Path, given_as: Any, classes: tuple[str, ...], place: int
) -> None:
    """Numbers for classes whose names are numbers, truths for those that are called so."""
    manifest = make_manifest(make_network(targets=2))
    manifest = manifest.model_copy(update={"target": manifest.target.model_copy(update={"classes": classes})})
    batch = read(write(tmp_path, "parquet", table(**{LABEL: [given_as] * 3})), manifest, LABEL)
    assert batch.labels is not None
    assert [place] * 3 == batch.labels.tolist()


# JSON


def test_json_is_read_in_any_order_and_layout(tmp_path: Path) -> None:
    """Labels before the rows, white space, escapes in strings, brackets in strings."""
    document = {"labels": ["class 1", "class 0"], "instances": [[1, 2, 3, 4, 5], {f"x{k}": k for k in range(5)}]}
    for text in (
        json.dumps(document, indent=4),
        json.dumps(document, separators=(",", ":")),
        f"\r\n\t {json.dumps(document)} ",
    ):
        batch = read(write(tmp_path, "json", text.encode()))
        assert [[1, 2, 3, 4, 5], [0, 1, 2, 3, 4]] == batch.x.tolist()
        assert batch.labels is not None
        assert [1.0, 0.0] == batch.labels.tolist()


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
def test_json_may_be_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """A value, a key, an escape or a number that lies across two blocks is whole."""
    monkeypatch.setattr(scan, "BLOCK", block)
    monkeypatch.setattr(texts, "BLOCK", block)
    names = ['x"[0', "x}1\\", "x2", "x3", "x4"]
    manifest = plain_manifest()
    features = tuple(f.model_copy(update={"name": name}) for f, name in zip(manifest.features, names, strict=True))
    manifest = manifest.model_copy(update={"features": features})
    rows = [dict(zip(names, row, strict=True)) for row in odd_rows(9).tolist()]
    content = json.dumps({"instances": [*rows, [1.5] * 5], "labels": ["class 3"] * 10}).encode()
    batch = read(write(tmp_path, "json", content), manifest)
    assert rows_to_array([*rows, [1.5] * 5], Features.of(manifest)).tobytes() == batch.x.tobytes()
    assert batch.labels is not None
    assert [3.0] * 10 == batch.labels.tolist()


@settings(max_examples=200, deadline=None)
@given(text=st.text('{}[]",:\\ 1x', max_size=30))
def test_json_is_taken_only_where_it_is_json(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Such texts are no rows: they are refused by an error of this package, but for white space, which is no row."""
    content = b'{"instances":[' + text.encode() + b"]}"
    try:
        empty = json.loads(content) == {"instances": []}
    except ValueError:
        empty = False
    reader = partial(open_reader, write(tmp_path_factory.mktemp("rows"), "json", content), plain_manifest(), None)
    if empty:
        assert [] == list(reader())
    else:
        with pytest.raises((InvalidInputError, MalformedBodyError)):
            list(reader())


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["JSON object"]),
        (b"[]", ["JSON object"]),
        (b"{}", ["/instances", "got none"]),
        (b'{"instances": 3}', ["/instances", "expected a list"]),
        (b'{"instances": [], "rows": []}', ["/rows", "instances or labels"]),
        (b'{"instances": [], "instances": []}', ["/instances", "twice"]),
        (b'{"instances": [[1,2,3]]}', ["/instances/0", "expected 5 numbers", "got 3"]),
        (b'{"instances": [[1,2,3,4,5],[1,2,3,4,"a"]]}', ["/instances/1/4", "'x4'", "expected a number", "'a'"]),
        (b'{"instances": [[1,2,3,4,5],[1,2,3,4,null]]}', ["/instances/1/4", "null"]),
        (b'{"instances": [[1,2,3,4,1e39]]}', ["/instances/0/4", "float32", "1e+39"]),
        (b'{"instances": [[1,2,3,4,5]], "labels": []}', ["/labels", "one a row", "got 0"]),
        (b'{"instances": [[1,2,3,4,5]], "labels": ["class 1", "class 1"]}', ["/labels", "expected 1", "more"]),
        (b'{"instances": [[1,2,3,4,5]], "labels": ["class 9"]}', ["row 0", "'labels'", "'class 3'", "'class 9'"]),
        (b'{"instances": [[1,2,3,4,5]], "labels": [null]}', ["row 0", "'labels'", "null"]),
    ],
)  # fmt: skip
def test_a_faulty_json_document_is_told(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    """Where it is, what was expected and what came."""
    message = refused(tmp_path, "json", content)
    assert [] == [part for part in parts if part not in message], message


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"instances"',
        b'{"instances": [',
        b'{"instances": [[1,2,3,4,5]',
        b'{"instances": []} x',
        b'{"instances": [] "a": 1}',
        b'{"instances": [[1,2,3,4,5] [1,2,3,4,5]]}',
        b'{"instances": [[1,2,3,4,5],]}',
        b'{"instances": [[1,2,3,4,NaN]]}',
        b'{"instances": [{"x0": 1]}]}',
        b"{instances: []}",
        b'{"instances": [tru]}',
        b'{"instances": ["a]}',
        b"\xff\xfe{",
    ],
)
def test_what_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    """As it is of a prediction request: the body is malformed, or is no object."""
    with pytest.raises((MalformedBodyError, InvalidInputError)) as caught:
        read(write(tmp_path, "json", content))
    assert "expected" in str(caught.value)


# NDJSON


@pytest.mark.parametrize(
    ("content", "label", "parts"),
    [
        (b"[1,2,3,4,5]\n\n[1,2,3,4]\n", None, ["row 1", "line 3", "expected 5 numbers", "got 4"]),
        (b'[1,2,3,4,5]\n[1,2,3,4,"a"]', None, ["row 1", "line 2", "'x4'", "expected a number", "'a'"]),
        (b"[1,2,3,4,5]\n[1,2\n3,4,5]\n", None, ["row 1", "line 2", "expected JSON", "'[1,2'"]),
        (b"[1,2,3,4,5],[1,2,3,4,5]\n", None, ["row 0", "line 1", "expected JSON"]),
        (b"[1,2,3,4,5],[1,2,3\n,4,5]\n", None, ["row 0", "line 1", "expected JSON"]),
        (b"[1,2,3,4,NaN]\n", None, ["row 0", "NaN and Infinity are no JSON"]),
        (b'{"x0":1,"x1":1,"x2":1,"x4":1}\n', None, ["row 0", "line 1", "'x3'"]),
        (b"3\n", None, ["row 0", "line 1", "a list of 5 numbers", "3"]),
        (b"[1,2,3,4,5]\n", LABEL, ["row 0", "line 1", "'outcome'", "got none"]),
        (b'{"x0":1,"x1":1,"x2":1,"x3":1,"x4":1,"outcome":"y"}\n', LABEL, ["row 0", "line 1", "'outcome'", "'y'"]),
    ],
)  # fmt: skip
def test_a_faulty_line_is_told(tmp_path: Path, content: bytes, label: str | None, parts: list[str]) -> None:
    """With row, line and column."""
    message = refused(tmp_path, "ndjson", content, label)
    assert [] == [part for part in parts if part not in message], message


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_lines_may_be_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """A line that lies across two blocks is whole; the last one may lack its end; both ways to end lines do."""
    monkeypatch.setattr(ndjson, "BLOCK", block)
    x = odd_rows(7)
    content = encoded("ndjson", x).replace(b"\n", b"\r\n").rstrip()
    expected = rows_to_array(x.tolist(), Features.of(plain_manifest()))
    assert expected.tobytes() == read(write(tmp_path, "ndjson", content)).x.tobytes()


# CSV


HEAD = b"x0,x1,x2,x3,x4\n"


@pytest.mark.parametrize(
    ("content", "label", "parts"),
    [
        (b"", None, ["columns", "empty table"]),
        (b"\n\n", None, ["columns", "empty table"]),
        (b"1,2,3,4,5\n1,2,3,4,5\n", None, ["line 1", "columns", "'x0'"]),
        (b"x0;x1;x2;x3;x4\n1;2;3;4;5\n", None, ["columns", "semicolons"]),
        (b"x0,x1,x2,x3,x4,x1\n", None, ["columns", "'x1' once", "twice"]),
        (b"x0,x1,x2,x3,X4\n", None, ["columns", "'x4'", "'X4'"]),
        (HEAD + b"1,2,3,4,5\n", LABEL, ["columns", "label: expected one of the columns, got 'outcome'"]),
        (HEAD + b"1,2,3,4,5\n", "x1", ["label", "no feature", "'x1'"]),
        (HEAD + b"1,2,3,4,5\n\n1,2,3,4,a\n", None, ["row 1", "line 4", "'x4'", "expected a number", "'a'"]),
        (HEAD + b"1,2,3,4,\n", None, ["row 0", "line 2", "'x4'", "got nothing"]),
        (HEAD + b"1,2,3,4,nan\n", None, ["row 0", "line 2", "'x4'", "'nan'"]),
        (HEAD + b"1,2,3,4,inf\n", None, ["row 0", "line 2", "'x4'", "'inf'"]),
        (HEAD + b"1,2,3,4,0x10\n", None, ["row 0", "line 2", "'x4'", "'0x10'"]),
        (HEAD + b"1,2,3,4,1_0\n", None, ["row 0", "line 2", "'x4'", "'1_0'"]),
        (HEAD + b"1,2,3,4,NA\n", None, ["row 0", "line 2", "'x4'", "'NA'"]),
        (HEAD + b"1,2,3,4,1e39\n", None, ["row 0", "line 2", "'x4'", "float32", "1e+39"]),
        (HEAD + b"1,2,3,4,5\n1,2,3,4\n", None, ["row 1", "line 3", "expected 5 columns", "got 4"]),
        (HEAD + b"1,2,3,4,5,6\n", None, ["row 0", "line 2", "expected 5 columns", "got 6"]),
        (HEAD + b'1,2,3,4,"5\n1,2,3,4,5\n', None, ["line 2", "expected a row"]),
        (b"x0,x1,x2,x3,x4,outcome\n1,2,3,4,5,class 1\n1,2,3,4,5,maybe\n", LABEL, ["row 1", "line 3", "'maybe'"]),
    ],
)  # fmt: skip
def test_a_faulty_table_is_told(tmp_path: Path, content: bytes, label: str | None, parts: list[str]) -> None:
    """With row, line and column, what was expected and what came."""
    message = refused(tmp_path, "csv", content, label)
    assert [] == [part for part in parts if part not in message], message


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    """Another encoding than UTF-8, with the line."""
    with pytest.raises(MalformedBodyError, match=r"line 3.*UTF-8"):
        read(write(tmp_path, "csv", b"x0,x1,x2,x3,x4,note\n1,2,3,4,5,a\n1,2,3,4,5,\xfc\n1,2,3,4,a,b\n"))


@pytest.mark.parametrize("block", [1, 5, 2**20])
def test_a_table_may_be_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """A byte order mark, both line endings, quoted fields with line feeds, empty lines, no end of the last line."""
    monkeypatch.setattr(csv_reader, "BLOCK", block)
    content = b'\xef\xbb\xbf"note",x0,x1,x2,x3,x4,outcome\r\n"a ""b""\r\n,c",1,2,3,+4,.5,class 1\r\n'
    content += b'\r\nd, 1 ,2.,"3",4E0,5,"class 0"'
    batch = read(write(tmp_path, "csv", content), label=LABEL)
    assert [[1, 2, 3, 4, 0.5], [1, 2, 3, 4, 5]] == batch.x.tolist()
    assert batch.labels is not None
    assert [1.0, 0.0] == batch.labels.tolist()


def test_both_ways_to_read_a_table_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow way, which tells of faults, gives the same numbers as the fast one."""
    x = np.random.default_rng(0).standard_normal((400, 5)) * 10.0 ** np.arange(-30, 40, 14)[:5]
    data = write(tmp_path, "csv", encoded("csv", x, [CLASSES[k % 4] for k in range(400)]))
    fast = read(data, label=LABEL)
    monkeypatch.setattr(csv_reader.CsvReader, "_fast", lambda *_: None)
    slow = read(data, label=LABEL)
    assert fast.x.tobytes() == slow.x.tobytes() == rows_to_array(x.tolist(), Features.of(plain_manifest())).tobytes()
    assert fast.labels is not None
    assert slow.labels is not None
    assert fast.labels.tolist() == slow.labels.tolist()


# Parquet


@pytest.mark.parametrize(
    "type_", [pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(5, 1)]
)
def test_a_column_may_be_of_any_numeric_type(tmp_path: Path, type_: Any) -> None:
    """Integers, floats and decimals, also as a dictionary."""
    values = pa.array([1, 2, 3], pa.int8()).cast(type_)
    assert [[1.0], [2.0], [3.0]] == read(write(tmp_path, "parquet", table(x0=values))).x[:, :1].tolist()
    coded = values.dictionary_encode() if not pa.types.is_float16(type_) else values
    assert [[1.0], [2.0], [3.0]] == read(write(tmp_path, "parquet", table(x0=coded))).x[:, :1].tolist()


@pytest.mark.parametrize("kind", ["fixed", "list", "large"])
def test_features_may_stand_in_one_column_of_lists(tmp_path: Path, kind: str) -> None:
    """In the order of the features, beside a label and further columns."""
    x = odd_rows(40)
    types = {"fixed": pa.list_(pa.float64(), 5), "list": pa.list_(pa.float64()), "large": pa.large_list(pa.float64())}
    sink = pa.BufferOutputStream()
    features = pa.array(x.tolist(), types[kind])
    parquet.write_table(
        pa.table({"id": range(40), "features": features, LABEL: ["class 2"] * 40}), sink, row_group_size=7
    )
    reader = open_reader(write(tmp_path, "parquet", bytes(sink.getvalue())), plain_manifest(), LABEL)
    (batch,) = chunked(reader, 100)
    assert rows_to_array(x.tolist(), Features.of(plain_manifest())).tobytes() == batch.x.tobytes()
    assert batch.labels is not None
    assert ([2.0] * 40, ["id"], 40) == (batch.labels.tolist(), reader.ignored, reader.total)


@pytest.mark.parametrize(
    ("content", "label", "parts"),
    [
        (table(x3=None), None, ["columns", "'x3'"]),
        (table(x3=["a", "b", "c"]), None, ["'x3'", "expected numbers", "string"]),
        (table(x3=[True, False, True]), None, ["'x3'", "expected numbers", "bool"]),
        (table(x3=[1.0, None, 2.0]), None, ["row 1", "'x3'", "null"]),
        (table(x3=[1.0, 2.0, float("nan")]), None, ["row 2", "'x3'", "nan"]),
        (table(x3=[1.0, 2.0, 1e39]), None, ["row 2", "'x3'", "float32", "1e+39"]),
        (table(outcome=["class 0", None, "class 1"]), LABEL, ["row 1", "'outcome'", "null"]),
        (table(outcome=["class 0", "class 1", "what"]), LABEL, ["row 2", "'outcome'", "'what'"]),
        (table(), LABEL, ["columns", "'outcome'"]),
    ],
)
def test_a_faulty_column_is_told(tmp_path: Path, content: bytes, label: str | None, parts: list[str]) -> None:
    """With row and column."""
    message = refused(tmp_path, "parquet", content, label)
    assert [] == [part for part in parts if part not in message], message


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        ([[1.0] * 5, [1.0] * 4], ["row 1", "'features'", "expected 5 numbers", "got 4"]),
        ([[1.0] * 5, None], ["row 1", "'features'", "expected a list", "null"]),
        ([[1.0] * 5, [1.0, None, 1.0, 1.0, 1.0]], ["row 1", "'x1'", "null"]),
        ([[1.0] * 5, [1.0, 2.0, 1e39, 1.0, 1.0]], ["row 1", "'x2'", "1e+39"]),
    ],
)
def test_a_faulty_list_is_told(tmp_path: Path, rows: list[Any], parts: list[str]) -> None:
    """With row and, where it is a value's fault, feature."""
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"features": pa.array(rows, pa.list_(pa.float64()))}), sink)
    message = refused(tmp_path, "parquet", bytes(sink.getvalue()))
    assert [] == [part for part in parts if part not in message], message


@pytest.mark.parametrize(
    "damage", [lambda _: b"PAR1", lambda content: content[:-40], lambda content: b"x" * len(content)]
)
def test_what_is_no_parquet_is_told(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Cut short, or something else."""
    with pytest.raises(MalformedBodyError, match="expected a Parquet file"):
        read(write(tmp_path, "parquet", damage(table())))


def test_damage_within_a_column_is_told(tmp_path: Path) -> None:
    """The footer is whole, a page is not."""
    content = bytearray(table(x0=np.random.default_rng(0).random(3)))
    content[8:40] = b"\xff" * 32
    with pytest.raises(MalformedBodyError, match="expected a Parquet file"):
        read(write(tmp_path, "parquet", bytes(content)))


def test_wide_row_groups_go_by_a_scratch_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows and labels, in several row groups; nothing is left in the folder; too long a file is refused."""
    monkeypatch.setattr(parquet_reader, "COLUMN_BYTES", 3000)
    monkeypatch.setattr(parquet_reader, "BATCH_VALUES", 100)
    x = odd_rows(333)
    sink = pa.BufferOutputStream()
    labels = [CLASSES[k % 4] for k in range(333)]
    parquet.write_table(pa.table(columns(x, labels)), sink, row_group_size=200, use_dictionary=False)
    data = write(tmp_path, "parquet", bytes(sink.getvalue()))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    reader = open_reader(data, plain_manifest(), LABEL, scratch)
    batches = list(chunked(reader, 1000))
    assert 2 * 2 < len(batches), "a batch without rows for each portion of the columns"
    (batch,) = (batch for batch in batches if len(batch.x))
    assert rows_to_array(x.tolist(), Features.of(plain_manifest())).tobytes() == batch.x.tobytes()
    assert batch.labels is not None
    assert [k % 4 for k in range(333)] == batch.labels.tolist()
    assert [] == list(scratch.iterdir())
    with pytest.raises(TooLargeError, match="at most 150 rows, got one of 200"):
        list(open_reader(data, plain_manifest(), LABEL, scratch, 150 * 5 * 4))


def test_a_fault_is_told_from_a_scratch_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the number of the row in the file, not in the row group."""
    monkeypatch.setattr(parquet_reader, "COLUMN_BYTES", 10)
    x = np.ones((300, 5))
    x[250, 3] = np.inf
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns(x)), sink, row_group_size=200)
    message = refused(tmp_path, "parquet", bytes(sink.getvalue()))
    assert "row 250, column 'x3'" in message


# All of them


@pytest.mark.parametrize(
    ("format_", "rows", "most"),
    [("json", 60_000, 2.5e6), ("ndjson", 60_000, 2.5e6), ("csv", 120_000, 6e6), ("parquet", 400_000, 10e6)],
)
def test_memory_is_bounded(tmp_path: Path, format_: str, rows: int, most: float) -> None:
    """Files of 5 to 16 MB are read in less of Python's memory; pyarrow's own is measured beside the tests."""
    data = write(tmp_path, format_, encoded(format_, np.random.default_rng(0).standard_normal((rows, 5))))
    assert data.bytes > 1.5 * most
    next(iter(open_reader(data, plain_manifest(), None)))  # what is imported, and made once
    tracemalloc.start()
    found = sum(len(batch.x) for batch in chunked(open_reader(data, plain_manifest(), None), 512))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == found
    assert peak < most, peak


@EVERY
def test_progress_is_told(tmp_path: Path, format_: str) -> None:
    """Bytes read grow to nearly all of them; rows in all are known where the format says so."""
    content = encoded(format_, np.random.default_rng(0).standard_normal((30_000, 5)))
    data = write(tmp_path, format_, content)
    reader = open_reader(data, plain_manifest(), None)
    positions = [reader.position for _ in chunked(reader, 512)]
    assert positions == sorted(positions)
    assert positions[0] > 0
    assert 0.9 * data.bytes < positions[-1] <= data.bytes
    assert (30_000 if format_ == "parquet" else None) == reader.total


def test_a_value_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row may not fill the memory."""
    for module in (scan, ndjson, csv_reader):
        monkeypatch.setattr(module, "VALUE_BYTES", 1000)
        if hasattr(module, "BLOCK"):
            monkeypatch.setattr(module, "BLOCK", 100)
    for format_, content in (
        ("json", b'{"instances": [[' + b"1," * 5000 + b"1]]}"),
        ("json", b'{"instances": ["' + b"1" * 5000 + b'"]}'),
        ("ndjson", b"[" + b"1," * 5000 + b"1]"),
        ("csv", HEAD + b'"' + b"1," * 5000),
    ):
        assert "at most 1,000 bytes" in refused(tmp_path, format_, content)


def test_a_file_tells_its_format(tmp_path: Path) -> None:
    """By its suffix, in either case, with its length and digest; for another suffix those that are known are named."""
    path = tmp_path / "rows.CSV"
    path.write_bytes(b"abc")
    data = Data.of_file(path)
    assert ("rows.CSV", "csv", 3) == (data.name, data.format, data.bytes)
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == data.sha256
    with pytest.raises(InvalidInputError, match=r"rows\.txt.*parquet"):
        Data.of_file(tmp_path / "rows.txt")
    (tmp_path / "rows").write_bytes(b"")
    assert "json" == Data.of_file(tmp_path / "rows", "json").format
