"""One request's rows in whatever batches they were computed, and what is made of a batch: against naive oracles."""

from functools import cache

import numpy as np
import onnxruntime
import pytest

from model.manifest import Manifest
from service.computed import FEATURES_AT_MOST, Computed, Rows
from service.sensitivity import Judge
from tests.builders import Values, export_network, make_manifest, make_network, make_rows, make_session, run_session

FEATURES = 14
NETWORK = {"features": FEATURES, "hidden": (8, 6)}


class Model:
    """A network with its graph, its manifest and its judge, in whose training range fewer features lie than named."""

    def __init__(self, *, bound: float | None) -> None:
        self.network = make_network(features=FEATURES, bound=bound)
        graph = export_network(self.network)
        self.session: onnxruntime.InferenceSession = make_session(graph)
        self.manifest: Manifest = make_manifest(self.network, model=graph)
        self.judge = Judge(self.manifest, 95.0, 99.0)

    def rows(self, count: int, *, seed: int, spread: float = 1.0) -> Values:
        """Rows around the mean."""
        return make_rows(self.network, count, seed=seed, spread=spread)

    def compute(self, x: Values) -> Computed:
        """One batch, with every output."""
        return Computed(x, run_session(self.session, x), self.judge)


@cache
def tame() -> Model:
    """Never overflows."""
    return Model(bound=3.0)


@cache
def wild() -> Model:
    """A polynomial without a bound."""
    return Model(bound=None)


def pieces(computed: list[Computed], cuts: list[tuple[int, int]]) -> list[tuple[Computed, int, int]]:
    """Of each batch the rows between two places."""
    return [(batch, start, stop) for batch, (start, stop) in zip(computed, cuts, strict=True)]


CUTS = [(2, 7), (0, 6), (5, 6), (0, 1)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_of_several_batches_are_those_of_each_in_order(count: int) -> None:
    """Every output, and every figure of the judgement, is that of the batches' own rows one after the other."""
    batches = [tame().compute(tame().rows(7, seed=seed)) for seed in range(count)]
    rows = Rows(pieces(batches, CUTS[:count]))
    x = np.concatenate([batch.x[start:stop] for batch, (start, stop) in zip(batches, CUTS, strict=False)])
    truth = tame().compute(x)
    assert frozenset(truth.outputs) == rows.outputs
    for name, values in truth.outputs.items():
        np.testing.assert_allclose(values, rows.output(name), rtol=1e-4, atol=1e-5)
        assert values.shape == rows.output(name).shape
        expected = [batch.outputs[name][start:stop] for batch, (start, stop) in zip(batches, CUTS, strict=False)]
        np.testing.assert_array_equal(np.concatenate(expected), rows.output(name))
    np.testing.assert_array_equal(x[:, 3], rows.gather(lambda batch: batch.x[:, 3]))
    np.testing.assert_array_equal(truth.judgement.verdict, rows.judged(lambda judgement: judgement.verdict))
    np.testing.assert_allclose(
        truth.judgement.percentile, rows.judged(lambda judgement: judgement.percentile), atol=0.02
    )
    assert truth.features_outside == rows.features_outside()
    assert [] == rows.overflowed()


def test_the_rows_that_overflow_are_found_in_whichever_batch() -> None:
    """By their place in the request: those with NaN or infinity in any output, and none of another request."""
    x = wild().rows(40, seed=1)
    x[[3, 4, 11, 25, 39]] *= 1e18
    batches = [wild().compute(x[:12]), wild().compute(x[12:24]), wild().compute(x[24:])]
    bad = {
        row
        for row in range(40)
        if any(not np.isfinite(values).all() for values in wild().compute(x[row : row + 1]).outputs.values())
    }
    assert {3, 4, 11, 25, 39} == bad
    rows = Rows(pieces(batches, [(4, 12), (3, 10), (0, 15)]))
    request = [*range(4, 12), *range(15, 22), *range(24, 39)]
    assert [place for place, row in enumerate(request) if row in bad] == rows.overflowed()
    assert [] == Rows(pieces(batches, [(5, 11), (0, 12), (2, 15)])).overflowed()
    assert [] == Rows(pieces(batches[:1], [(0, 3)])).overflowed()
    assert [0] == Rows(pieces(batches[:1], [(3, 4)])).overflowed()


def test_a_batch_without_overflow_says_so() -> None:
    """None, not a row of no's; large but finite values, whose squares are not, are no overflow."""
    computed = tame().compute(tame().rows(5, seed=2))
    assert computed.overflowed is None
    large = {**computed.outputs, "value": np.full(5, 1e30, np.float32)}
    assert Computed(computed.x, large, tame().judge).overflowed is None
    for bad in (np.nan, np.inf, -np.inf):
        values = np.zeros((5, 3), np.float32)
        values[4, 2] = bad
        flags = Computed(computed.x, {**computed.outputs, "more": values}, tame().judge).overflowed
        assert flags is not None
        assert [False] * 4 + [True] == flags.tolist()


@pytest.mark.parametrize("spread", [0.5, 1.5, 4.0, 30.0])
def test_the_features_outside_are_those_outside_the_training_range(spread: float) -> None:
    """Of each row the first ten, one by one by the manifest's least and greatest values."""
    x = tame().rows(60, seed=3, spread=spread)
    features = tame().manifest.features
    expected = []
    for row in x:
        outside = []
        for place, feature in enumerate(features):
            if row[place] < np.float32(feature.minimum) or row[place] > np.float32(feature.maximum):
                outside.append(place)
        expected.append(outside[:10])
    assert expected == tame().compute(x).features_outside
    assert FEATURES_AT_MOST == 10
    most = max(map(len, expected))
    assert most == 10 if spread > 10 else most < 14


def test_batches_together_are_as_one() -> None:
    """Rows one after the other, with the outputs that all have; what is made of them is what is made of each."""
    batches = [tame().compute(tame().rows(count, seed=count, spread=2.5)) for count in (1, 4, 2)]
    fewer = {name: values for name, values in batches[1].outputs.items() if name not in {"gradient", "jacobian"}}
    batches[1] = Computed(batches[1].x, fewer, tame().judge)
    together = Computed.together(batches)
    assert fewer.keys() == together.outputs.keys()
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in batches]), together.x)
    for name in fewer:
        np.testing.assert_array_equal(
            np.concatenate([batch.outputs[name] for batch in batches]), together.outputs[name]
        )
    verdicts = [verdict for batch in batches for verdict in batch.judgement.verdict.tolist()]
    assert verdicts == together.judgement.verdict.tolist()
    assert [row for batch in batches for row in batch.features_outside] == together.features_outside


def test_one_batch_together_is_itself() -> None:
    """Nothing is copied."""
    computed = tame().compute(tame().rows(3, seed=5))
    assert computed is Computed.together([computed])
