"""The latest rows of a model version: a ring that keeps what came last, with each row's own flags."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.sensitivity import CRITICAL, VERDICTS
from service.window import Window

Rows = tuple[NDArray[np.float32], NDArray[np.int8], NDArray[np.bool_]]
SIZES = [[1], [99], [100], [101], [250], [60, 60], [99, 1, 1], [30] * 9, [0, 5, 0]]


def make_rows(generator: np.random.Generator, count: int) -> Rows:
    """Norms, verdicts and which are out of range; the three have nothing to do with each other."""
    norms = generator.lognormal(size=count).astype(np.float32)
    verdicts = generator.integers(len(VERDICTS), size=count).astype(np.int8)
    return norms, verdicts, generator.random(count) < 0.3


@pytest.mark.parametrize("sizes", SIZES)
def test_a_window_keeps_what_came_last(sizes: list[int]) -> None:
    """Whatever the sizes in which rows come, greater than the window included; each norm with its own flags."""
    generator = np.random.default_rng(8)
    ring = Window(100)
    parts: list[Rows] = []
    for size in sizes:
        parts.append(make_rows(generator, size))
        ring.add(*parts[-1])
        norms, verdicts, out_of_range = (np.concatenate(values)[-100:] for values in zip(*parts, strict=True))
        recent = ring.recent()
        expected = sorted(zip(norms, verdicts == CRITICAL, out_of_range, strict=True))
        assert expected == sorted(zip(recent.norms, recent.critical, recent.out_of_range, strict=True))
        assert (sum(map(len, (part[0] for part in parts))), len(norms)) == (ring.seen, len(ring))


@pytest.mark.parametrize("sizes", SIZES)
def test_the_statistics_are_numpy_s(sizes: list[int]) -> None:
    """Mean, quantiles, maximum and τ over the latest rows; none where there is no row."""
    generator = np.random.default_rng(9)
    ring = Window(100)
    seen = np.empty(0, np.float32)
    assert {} == ring.statistics()
    for size in sizes:
        norms, verdicts, out_of_range = make_rows(generator, size)
        ring.add(norms, verdicts, out_of_range)
        seen = np.concatenate([seen, norms])[-100:]
        if not len(seen):
            continue
        wide = seen.astype(np.float64)
        expected = {
            "rows": len(wide),
            "mean": wide.mean(),
            "p50": np.quantile(wide, 0.5),
            "p95": np.quantile(wide, 0.95),
            "p99": np.quantile(wide, 0.99),
            "maximum": wide.max(),
            "tail_ratio": np.quantile(wide, 0.99) / wide.mean(),
        }
        assert pytest.approx(expected, rel=1e-12) == ring.statistics()


def test_a_window_of_zeros_has_no_tail_ratio() -> None:
    """τ is not defined where the mean is zero; the other figures are."""
    ring = Window(100)
    ring.add(np.zeros(3, np.float32), np.zeros(3, np.int8), np.zeros(3, np.bool_))
    zeros = dict.fromkeys(("mean", "p50", "p95", "p99", "maximum"), 0.0)
    assert {"rows": 3.0, **zeros} == ring.statistics()


def test_what_was_copied_does_not_change() -> None:
    """Rows that come later leave alone what another thread is looking at."""
    ring = Window(100)
    generator = np.random.default_rng(10)
    ring.add(*make_rows(generator, 100))
    recent = ring.recent()
    before = [recent.norms.copy(), recent.critical.copy(), recent.out_of_range.copy()]
    ring.add(*make_rows(generator, 100))
    assert all(map(np.array_equal, before, (recent.norms, recent.critical, recent.out_of_range)))
    assert not np.array_equal(recent.norms, ring.recent().norms)
