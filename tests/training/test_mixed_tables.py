"""Tables of numbers and categories with missing values, from the rows to the bundle and back."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model import bundle
from model.bundle import MODEL_FILE
from model.network import CRNetwork
from model.outputs import FLIPS, Task
from model.sensitivity import report
from tests.builders import run_graph
from tests.training.mixed import make_mixed_table
from tests.training.runs import Run, settings
from training.pipeline import learn, train

each_task = pytest.mark.parametrize("task", list(Task))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Run]:
    """One run a task on a table of numbers, categories and missing values."""
    repository = tmp_path_factory.mktemp("mixed")
    config = settings(repository, epochs=10, compare=("relu", "gelu", "boosting"))
    return {task: Run(config.model_copy(update={"name": task.value}), make_mixed_table(task, seed=2)) for task in Task}


def trained_network(run: Run) -> CRNetwork:
    """The network of a run, trained and calibrated once more: the same, for the run is repeatable."""
    return learn(run.config, run.table, run.parts, lambda network, epoch: None).network


@each_task
def test_written_graph_agrees_with_torch_on_mixed_rows(mixed: dict[Task, Run], task: Task) -> None:
    """Every output of model.onnx, on rows with categories, others and missing values, is that of the closed forms."""
    run = mixed[task]
    assert run.manifest == bundle.read(run.result.path).manifest
    minimum, maximum = (
        torch.tensor([getattr(feature, name) for feature in run.manifest.features]) for name in ("minimum", "maximum")
    )
    network = trained_network(run)
    with torch.no_grad():
        expected = report(network, torch.from_numpy(run.table.x[run.parts.test]), minimum, maximum)
    got = run.outputs(run.parts.test)
    assert {output.name for output in run.manifest.outputs()} == set(expected) == set(got)
    for name, values in expected.items():
        torch.testing.assert_close(values, torch.from_numpy(got[name]), rtol=1e-4, atol=1e-5)


@each_task
def test_flips_are_the_predictions_of_the_flipped_rows(mixed: dict[Task, Run], task: Task) -> None:
    """What a flip is said to predict is what the graph predicts for the row with that category, or without one."""
    run = mixed[task]
    rows = run.table.x[run.parts.test]
    name = {Task.CLASSIFICATION: "probabilities", Task.ORDINAL: "expected_level", Task.REGRESSION: "value"}[task]
    flips = run.outputs(run.parts.test)[FLIPS]
    graph, column = onnx.load(run.result.path / MODEL_FILE), 0
    for place, feature in enumerate(run.manifest.features):
        for number, category in enumerate(feature.flips):
            flipped = rows.copy()
            flipped[:, place] = np.nan if category is None else number
            np.testing.assert_allclose(run_graph(graph, flipped)[name], flips[:, column], rtol=1e-4, atol=1e-5)
            column += 1
    assert column == flips.shape[1] == 3 + 4


@each_task
def test_learned_value_of_a_missing_number_is_in_the_manifest(mixed: dict[Task, Run], task: Task) -> None:
    """The manifest says what stands for a missing income, in its unit; training has moved it from the mean."""
    run = mixed[task]
    age, income, *_ = run.manifest.features
    encoding = trained_network(run).encoding
    assert float(encoding.imputed.detach()) * income.scale + income.mean == pytest.approx(income.imputed)
    assert income.imputed is not None
    assert abs(income.imputed - income.mean) > 0.01 * income.scale
    assert (True, False, None) == (income.missing, age.missing, age.imputed)
    assert ("years", ("A", "B", "(other)", None)) == (age.unit, run.manifest.features[4].flips)


@each_task
def test_all_rivals_stand_beside_it(mixed: dict[Task, Run], task: Task) -> None:
    """Networks and boosting train on the same mixed rows; epochs are kept of what has epochs."""
    run = mixed[task]
    names = ["ReLU network", "GELU network", "gradient boosting"]
    assert names == [each.name for each in run.manifest.comparisons]
    assert ["ChainzRule", *names[:2]] == list(run.result.epochs)
    assert {} == run.result.failures
    assert all(10 == len(epochs) for epochs in run.result.epochs.values())


@each_task
def test_every_metric_has_its_interval(mixed: dict[Task, Run], task: Task) -> None:
    """Each interval holds its figure; only the calibration error has none."""
    evaluation = mixed[task].manifest.evaluation
    assert set(evaluation.intervals) == set(evaluation.metrics) - {"expected_calibration_error"}
    assert all(low <= evaluation.metrics[name] <= high for name, (low, high) in evaluation.intervals.items())


def test_memory_map_gives_the_same_bundle(mixed: dict[Task, Run], tmp_path: Path) -> None:
    """A table that stays on disk is trained on as one in memory: the same graph to the byte, the same figures."""
    run = mixed[Task.CLASSIFICATION]
    np.save(tmp_path / "x.npy", run.table.x)
    table = replace(run.table, x=np.load(tmp_path / "x.npy", mmap_mode="r"))
    second = train(run.config.model_copy(update={"repository": tmp_path / "bundles"}), table)
    assert (run.result.path / MODEL_FILE).read_bytes() == (second.path / MODEL_FILE).read_bytes()
    assert run.manifest.evaluation == second.manifest.evaluation
    assert run.manifest.stress == second.manifest.stress
