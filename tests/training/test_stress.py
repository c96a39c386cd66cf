"""Rows pushed beyond the training range: where they lie, what the graph answers, and what the service would say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import bundle
from model.export import export
from model.manifest import Stress
from model.outputs import Task
from service.sensitivity import Judge
from tests.builders import run_graph
from tests.training.mixed import make_mixed_table
from tests.training.tables import make_config, make_table
from training.calibrate import calibrate
from training.data.table import Split, Table, split
from training.evaluate import ask_graph
from training.network import make_network
from training.pipeline import train
from training.scaling import Scaling, measure
from training.stress import DISTANCES, ROWS_AT_MOST, push, stress

Values = NDArray[np.float32]

each_task = pytest.mark.parametrize("task", list(Task))


def parts_of(table: Table) -> Split:
    """The split of the default settings."""
    return split(table, test_share=0.2, calibration_share=0.2, seed=0)


def pushed_rows(table: Table, distance: float) -> tuple[Values, Values, Scaling, NDArray[np.bool_]]:
    """Test rows, the same pushed, the scaling, and the ends."""
    parts = parts_of(table)
    scaling = measure(table, parts.training)
    x = table.x[parts.test]
    upward = np.random.default_rng(1).integers(0, 2, x.shape).astype(np.bool_)
    return x, push(x, table, scaling, distance, upward), scaling, upward


@pytest.mark.parametrize("distance", DISTANCES)
def test_numbers_lie_the_distance_beyond_their_range(distance: float) -> None:
    """Each number lies so many widths of its training range beyond one of its ends."""
    _, pushed, scaling, upward = pushed_rows(make_table(), distance)
    width = scaling.maximum.astype(np.float64) - scaling.minimum
    above, below = (pushed - scaling.maximum.astype(np.float64)) / width, (scaling.minimum - pushed.astype(np.float64))
    np.testing.assert_allclose(np.where(upward, above, below / width), distance, rtol=1e-3)
    assert 0.4 < upward.mean() < 0.6


def test_categories_and_missing_values_stay() -> None:
    """What is no number cannot be pushed, and what is missing stays missing."""
    table = make_mixed_table()
    x, pushed, scaling, _ = pushed_rows(table, 10.0)
    np.testing.assert_array_equal(x[:, 3:], pushed[:, 3:])
    np.testing.assert_array_equal(np.isnan(x), np.isnan(pushed))
    there = ~np.isnan(pushed[:, :3])
    outside = (pushed[:, :3] < scaling.minimum[:3]) | (pushed[:, :3] > scaling.maximum[:3])
    np.testing.assert_array_equal(there, outside)


def test_constant_feature_is_pushed_by_its_scale() -> None:
    """A range that is a point has no width; the feature goes out by the σ of its standardisation."""
    table = make_table()
    table.x[:, 2] = 7.0
    _, pushed, _, upward = pushed_rows(table, 10.0)
    np.testing.assert_allclose(pushed[:, 2], np.where(upward[:, 2], 17.0, -3.0))


def test_numbers_beyond_float32_are_kept_finite() -> None:
    """A range as wide as float32's is not left: infinity is no row that a client could send."""
    table = make_table()
    table.x[:, 0] *= np.float32(1e37)
    _, pushed, _, _ = pushed_rows(table, 1000.0)
    assert np.isfinite(pushed).all()


@each_task
def test_figures_are_those_of_the_graph_and_of_the_service(task: Task, tmp_path: Path) -> None:
    """Norms and score changes come out of the written graph again; out of range is what the service's judge says."""
    table = make_mixed_table(task)
    result = train(make_config(repository=tmp_path, epochs=5), table)
    manifest, model = result.manifest, bundle.read(result.path).model
    parts = parts_of(table)
    scaling = measure(table, parts.training)
    x = table.x[np.sort(np.random.default_rng(0).choice(parts.test, len(parts.test), replace=False))]
    generator = np.random.default_rng(0)
    generator.choice(parts.test, len(parts.test), replace=False)
    upward = generator.integers(0, 2, x.shape).astype(np.bool_)
    score = "value" if task is Task.REGRESSION else "logits"
    judge = Judge(manifest, 95, 99)
    assert list(DISTANCES) == [figures.distance for figures in manifest.stress]
    for figures in manifest.stress:
        pushed = push(x, table, scaling, figures.distance, upward)
        outputs = run_graph(model, pushed)
        assert figures.gradient_norm is not None
        norms = outputs["gradient_norm"].astype(np.float64)
        assert norms.max() == pytest.approx(figures.gradient_norm.maximum, rel=1e-5)
        assert norms.mean() == pytest.approx(figures.gradient_norm.mean, rel=1e-5)
        change = np.abs(outputs[score].astype(np.float64) - run_graph(model, x)[score]).max()
        assert float(change) == pytest.approx(figures.score_change, rel=1e-5)
        assert float(judge.judge(pushed, outputs).out_of_range.mean()) == figures.out_of_range
        assert (len(x), True) == (figures.rows, figures.finite)


def stressed(bound: float | None, table: Table) -> tuple[list[bool], list[Stress]]:
    """Whether the outputs of an untrained network are finite at each distance, and the figures."""
    parts = parts_of(table)
    scaling = measure(table, parts.training)
    network = make_network(make_config(hidden=(8, 8, 8), bound=bound), table, parts, scaling)
    with torch.no_grad():
        for layer in network.polynomial_layers():
            layer.activation.coefficients[3].fill_(0.1)
    model = export(network, scaling.minimum.tolist(), scaling.maximum.tolist())
    calibration = calibrate(ask_graph(model, table, parts.calibration, 3), scaling.excess(table, parts.calibration))
    figures = stress(model, table, parts.test, scaling, calibration, hidden_layers=3, seed=0)
    return [each.finite for each in figures], list(figures)


def test_bound_keeps_outputs_finite_and_slopes_bounded() -> None:
    """With the tangent continuation the norm settles, and the score grows no faster than the distance."""
    finite, figures = stressed(3.0, make_table())
    assert [True] * 5 == finite
    far, farther = figures[-2:]
    assert far.gradient_norm is not None
    assert farther.gradient_norm is not None
    assert far.score_change is not None
    assert farther.score_change is not None
    assert far.gradient_norm.maximum == pytest.approx(farther.gradient_norm.maximum, rel=0.2)
    assert farther.score_change < 11 * far.score_change
    assert [1.0, 1.0] == [far.out_of_range, farther.out_of_range]


def test_network_without_a_bound_overflows_and_is_told_of() -> None:
    """Three cubic layers give degree 27: 1,000 ranges out that is no float32, which is a figure and no error."""
    with np.errstate(all="ignore"):
        finite, figures = stressed(None, make_table())
    assert (True, False) == (finite[0], finite[-1])
    assert (None, None) == (figures[-1].gradient_norm, figures[-1].score_change)
    assert 1.0 == figures[-1].out_of_range


def test_many_rows_are_sampled() -> None:
    """Of more test rows than the limit, that many are asked."""
    table = make_table(rows=6000)
    _, figures = stressed(3.0, replace(table, test_rows=ROWS_AT_MOST + 200))
    assert {ROWS_AT_MOST} == {each.rows for each in figures}
