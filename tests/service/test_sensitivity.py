"""From numbers to a judgement: thresholds, percentiles, ranges and the estimate, by hand-made figures."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model.manifest import Calibration, Distribution, Feature, Manifest
from service.sensitivity import VERDICTS, Judge, Judgement, Verdict, overflowed, steepest
from tests.builders import Values, make_manifest, make_network

NOMINAL, ELEVATED, CRITICAL = Verdict.NOMINAL, Verdict.ELEVATED, Verdict.CRITICAL


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Calibration norms that run evenly from 0 to 10, and features that range from -1 to 1, with σ = 0.5."""
    levels = [k / 100 for k in range(1, 100)]
    calibration = Calibration(
        gradient_norm=Distribution(rows=1000, mean=5, p50=5, p95=9.5, p99=9.9, maximum=10, tail_ratio=9.9 / 5),
        minimum=0,
        quantiles={str(level): 10 * level for level in levels},
        hidden_out_of_range_maximum=0.25,
        out_of_range_rows=0.1,
        out_of_range_margin=2.0,
    )
    features = tuple(Feature(name=f"x{k}", minimum=-1, maximum=1, mean=0, scale=0.5) for k in range(3))
    return make_manifest(make_network(features=3)).model_copy(update={"calibration": calibration, "features": features})


def outputs(norms: Sequence[float], **others: Sequence[float]) -> dict[str, Values]:
    """Outputs of the sensitivity plan: given norms, all else in range."""
    zeros = [0.0] * len(norms)
    figures = {"gradient_norm": norms, "out_of_range": zeros, "hidden_out_of_range": zeros, **others}
    return {name: np.array(values, np.float32) for name, values in figures.items()}


def verdicts(judgement: Judgement) -> list[Verdict]:
    """The verdict of each row."""
    return [VERDICTS[place] for place in judgement.verdict.tolist()]


def centred(count: int) -> Values:
    """Rows in the middle of the training range."""
    return np.zeros((count, 3), np.float32)


def test_thresholds_are_quantiles_of_the_calibration(manifest: Manifest) -> None:
    """The percentiles of the settings are looked up in the calibration, interpolated between its levels."""
    judge = Judge(manifest, 95.0, 99.0)
    assert pytest.approx((9.5, 9.9)) == (judge.elevated, judge.critical)
    judge = Judge(manifest, 12.34, 99.95)
    assert pytest.approx((1.234, 9.995)) == (judge.elevated, judge.critical)
    judge = Judge(manifest, 0.0, 100.0)
    assert (0.0, 10.0) == (judge.elevated, judge.critical)


def test_a_norm_at_a_threshold_is_not_above_it(manifest: Manifest) -> None:
    """Nominal up to and with the first threshold, elevated up to and with the second, critical beyond."""
    judge = Judge(manifest, 50.0, 75.0)
    assert (5.0, 7.5) == (judge.elevated, judge.critical)
    norms = [0.0, 5.0, float(np.nextafter(np.float32(5), np.float32(9))), 7.5, 7.500001, 1e30]
    assert [NOMINAL, NOMINAL, ELEVATED, ELEVATED, CRITICAL, CRITICAL] == verdicts(
        judge.judge(centred(6), outputs(norms))
    )


def test_percentiles_are_interpolated_and_end_at_0_and_100(manifest: Manifest) -> None:
    """A norm below the least or above the greatest calibration norm is at 0 or 100, others lie between."""
    judgement = Judge(manifest, 95.0, 99.0).judge(centred(5), outputs([0, 1.25, 5, 9.99, 50]))
    assert pytest.approx([0, 12.5, 50, 99.9, 100], abs=1e-5) == judgement.percentile.tolist()


@given(norms=st.lists(st.floats(0, 20, width=32), min_size=2, max_size=20))
@settings(deadline=None, derandomize=True)
def test_a_greater_norm_is_never_judged_milder(manifest: Manifest, norms: list[float]) -> None:
    """Percentiles and verdicts do not decrease with the norm."""
    norms = sorted(norms)
    judgement = Judge(manifest, 60.0, 90.0).judge(centred(len(norms)), outputs(norms))
    order = list(Verdict)
    assert judgement.percentile.tolist() == sorted(judgement.percentile.tolist())
    assert sorted(verdicts(judgement), key=order.index) == verdicts(judgement)


@pytest.mark.parametrize(
    ("x", "expected"),
    [(1.0, False), (1.5, False), (2.0, False), (2.01, True), (-2.0, False), (-2.01, True), (3e38, True)],
)
def test_out_of_range_begins_beyond_the_calibration_rows_margin(
    manifest: Manifest, x: float, *, expected: bool
) -> None:
    """The farthest calibration row lay two standard deviations, here 1.0, outside the training range of -1 to 1."""
    rows = np.array([[0, x, 0]], np.float32)
    share = float(not -1 <= x <= 1) / 3
    judgement = Judge(manifest, 95.0, 99.0).judge(rows, outputs([1.0], out_of_range=[share]))
    assert ([expected], [CRITICAL if expected else NOMINAL]) == (judgement.out_of_range.tolist(), verdicts(judgement))


def test_more_hidden_units_beyond_their_bound_than_in_calibration_is_out_of_range(manifest: Manifest) -> None:
    """The greatest share in calibration is still in range, anything above is not, however flat the row."""
    judgement = Judge(manifest, 95.0, 99.0).judge(centred(3), outputs([1, 1, 1], hidden_out_of_range=[0, 0.25, 0.251]))
    assert ([False, False, True], [NOMINAL, NOMINAL, CRITICAL]) == (
        judgement.out_of_range.tolist(),
        verdicts(judgement),
    )


def test_outside_tells_which_features(manifest: Manifest) -> None:
    """Each feature of each row, the ends of the training range being inside."""
    rows = np.array([[-1, 0, 1], [-1.01, 0, 1.01]], np.float32)
    assert [[False, False, False], [True, False, True]] == Judge(manifest, 95.0, 99.0).outside(rows).tolist()


def test_there_is_no_distance_without_classes(manifest: Manifest) -> None:
    """Ordinal levels and values have no margin."""
    figures = outputs([1.0])
    assert Judge(manifest, 95.0, 99.0).judge(centred(1), figures).first_order_distance is None


def test_overflowed_rows_are_found_in_any_output() -> None:
    """A row counts once, whichever of its outputs is NaN or infinite."""
    figures = outputs([1, np.inf, 1, 1, np.nan], margin=[1, 1, -np.inf, 1, np.nan])
    figures["jacobian"] = np.zeros((5, 2, 3), np.float32)
    figures["jacobian"][0, 1, 2] = np.nan
    assert [0, 1, 2, 4] == np.flatnonzero(overflowed(figures)).tolist()
    assert not overflowed(outputs([1, 2, 3e38])).any()


@given(
    gradient=arrays.arrays(np.float32, st.integers(1, 12), elements=st.floats(-100, 100, width=32)),
    count=st.integers(0, 15),
    data=st.data(),
)
@settings(deadline=None, derandomize=True)
def test_the_steepest_features_come_first(gradient: Values, count: int, data: st.DataObject) -> None:
    """By descending absolute value, equal ones in the order of the features, as many as asked for and can be moved."""
    movable = data.draw(arrays.arrays(np.bool_, len(gradient)))
    expected = sorted(np.flatnonzero(movable).tolist(), key=lambda k: (-abs(gradient[k]), k))[:count]
    assert expected == steepest(gradient, count, movable).tolist()
