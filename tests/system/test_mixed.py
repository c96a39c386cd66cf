"""A real server, and a model with categories and missing values: JSON, a CSV audit, a replay of its trail."""

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.outputs import FLIPS, Task
from tests.builders import Values, make_features, make_mixed_network, make_rows, sent_rows, write_bundle
from tests.service.audit_command import COMMAND
from tests.service.mixed import close
from tests.service.support import JSON, assert_problem, predictions
from tests.system.server import Server, ask_on, environment, serving

NAME = "adults"
NETWORK = make_mixed_network(Task.CLASSIFICATION, seed=9)
FEATURES = make_features(NETWORK)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model."""
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder, NAME, NETWORK)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server runs, and has its trail."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(repository: Path, folder: Path) -> Iterator[Server]:
    """A process with one thread that keeps inputs in full."""
    with serving(repository, folder, "--inputs", "full", "--trail", str(folder / "trail"), "--threads", "1") as server:
        yield server


def table(rows: Values) -> str:
    """Rows as a CSV file, with an empty field for what is missing."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([feature.name for feature in FEATURES])
    writer.writerows([["" if value is None else value for value in row] for row in sent_rows(rows, FEATURES)])
    return text.getvalue()


def test_rows_in_json_get_their_predictions_and_flips(server: Server) -> None:
    """Texts and null in, what every other category would change out: as if it had been sent."""
    x = make_rows(NETWORK, 5, seed=61)
    rows = sent_rows(x, FEATURES)
    told = predictions(server.predict(NAME, rows, flips=True, top_features=2))
    for row, prediction in zip(rows, told, strict=True):
        best = prediction["label"]
        (colours, plans) = prediction["sensitivity"]["flips"]
        assert (row[1], 2, 3) == (colours["category"], len(colours["flips"]), len(plans["flips"]))
        for flip in colours["flips"]:
            (then,) = predictions(server.predict(NAME, [[row[0], flip["category"], *row[2:]]]))
            assert flip.get("label", best) == then["label"]
            change = then["probabilities"][best] - prediction["probability"]
            assert close(np.array(change), flip["change"])


def test_what_is_not_taken_is_named(server: Server) -> None:
    """A category that there is not, with what may have been meant."""
    answer = server.predict(NAME, [[1, "ture", None, 2, None]])
    assert_problem(answer, 422, "invalid-input", "feature 'x1'", "(did you mean 'true'?)")


def test_codes_come_by_the_protocol(server: Server) -> None:
    """Null for a missing value; the flips are an output."""
    data = [[0.5, 1, None, 2, None], [0.5, 1, 3, 2, 2]]
    tensor = {"name": "input", "shape": [2, 5], "datatype": "FP32", "data": data}
    answer = server.ask("POST", f"/v2/models/{NAME}/infer", {"inputs": [tensor], "outputs": [{"name": FLIPS}]})
    assert (200, JSON) == (answer.status, answer.media_type), answer.text
    (output,) = answer.json()["outputs"]
    assert [2, 7, 3] == output["shape"]


def test_a_table_is_audited_by_the_service_and_by_the_command_alike(
    server: Server, repository: Path, folder: Path
) -> None:
    """The same CSV file, with empty fields and quoted texts, over HTTP and without a server."""
    content = table(make_rows(NETWORK, 300, seed=62)).encode()
    path = folder / "rows.csv"
    path.write_bytes(content)
    connection = server.connect()
    answer = ask_on(
        connection, "POST", f"/v1/models/{NAME}/audit", content=content, headers={"content-type": "text/csv"}
    )
    connection.close()
    assert 200 == answer.status, answer.text
    report = folder / "report.json"
    done = subprocess.run(
        [COMMAND, "run", path, "--bundle", repository / NAME / "1", "--json", report, "--threads", "1"],
        env=environment(CHAINZRULE_DEVICE="cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    by_command, by_service = json.loads(report.read_text()), answer.json()
    for field in ("rows", "gradient_norm", "verdicts", "worst", "out_of_range"):
        assert by_service[field] == by_command[field], field


def test_the_trail_is_computed_anew(server: Server, repository: Path, folder: Path) -> None:
    """From the inputs that the records hold: texts and null."""
    rows = sent_rows(make_rows(NETWORK, 20, seed=63), FEATURES)
    assert 20 == len(predictions(server.predict(NAME, rows, flips=True)))
    done = subprocess.run(
        [COMMAND, "replay", "--trail", folder / "trail", "--repository", repository, "--threads", "1"],
        env=environment(CHAINZRULE_DEVICE="cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "different                  0" in done.stdout, done.stdout
