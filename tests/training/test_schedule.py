"""The schedule of λ: its ends, its middle, and that it moves in one direction."""

import math
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.schedule import TargetedWeight, WeightSchedule

MOVING: tuple[Literal["linear", "cosine"], ...] = ("linear", "cosine")
RAMP = (0.2, 0.6)

each_moving_shape = pytest.mark.parametrize("shape", MOVING)
shares = st.floats(0, 1)
ramps = st.tuples(shares, shares).map(lambda ends: (min(ends), max(ends)))
weights = st.floats(0, 1e6)


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.4, 1.0])
def test_constant_is_the_end_weight_throughout(progress: float) -> None:
    """A constant λ is λ₁, whatever λ₀ and the ramp say."""
    assert 0.7 == WeightSchedule("constant", 0.1, 0.7, RAMP)(progress)


@each_moving_shape
@pytest.mark.parametrize("progress", [0.0, 0.1, 0.2])
def test_rests_at_the_start_weight_before_the_ramp(shape: Literal["linear", "cosine"], progress: float) -> None:
    """Up to where the ramp begins, λ is λ₀."""
    assert 0.1 == WeightSchedule(shape, 0.1, 0.7, RAMP)(progress)


@each_moving_shape
@pytest.mark.parametrize("progress", [0.6, 0.8, 1.0])
def test_rests_at_the_end_weight_after_the_ramp(shape: Literal["linear", "cosine"], progress: float) -> None:
    """From where the ramp ends, λ is λ₁."""
    assert 0.7 == pytest.approx(WeightSchedule(shape, 0.1, 0.7, RAMP)(progress), rel=1e-15)


@each_moving_shape
def test_is_half_way_in_the_middle_of_the_ramp(shape: Literal["linear", "cosine"]) -> None:
    """Both shapes are symmetric: the middle of the ramp has the mean of λ₀ and λ₁."""
    assert 0.4 == pytest.approx(WeightSchedule(shape, 0.1, 0.7, RAMP)(0.4))


def test_linear_is_a_straight_line() -> None:
    """A quarter of the linear ramp has moved λ by a quarter."""
    assert 0.1 + 0.25 * 0.6 == pytest.approx(WeightSchedule("linear", 0.1, 0.7, RAMP)(0.3))


def test_cosine_is_half_a_period() -> None:
    """A quarter of the cosine ramp has moved λ by (1 − cos 45°) / 2."""
    share = (1 - math.cos(math.pi / 4)) / 2
    assert 0.1 + share * 0.6 == pytest.approx(WeightSchedule("cosine", 0.1, 0.7, RAMP)(0.3))


@each_moving_shape
@pytest.mark.parametrize(
    ("where", "progress", "expected"),
    [(0.5, 0.49, 0.1), (0.5, 0.5, 0.7), (0.5, 0.51, 0.7), (0.0, 0.0, 0.7), (1.0, 0.99, 0.1), (1.0, 1.0, 0.7)],
)
def test_empty_ramp_is_a_jump(
    shape: Literal["linear", "cosine"], where: float, progress: float, expected: float
) -> None:
    """A ramp that begins where it ends is a step from λ₀ to λ₁, taken there."""
    assert expected == pytest.approx(WeightSchedule(shape, 0.1, 0.7, (where, where))(progress), rel=1e-15)


@each_moving_shape
@settings(deadline=None, derandomize=True)
@given(start=weights, end=weights, ramp=ramps, first=shares, second=shares)
def test_moves_in_one_direction(
    shape: Literal["linear", "cosine"],
    start: float,
    end: float,
    ramp: tuple[float, float],
    first: float,
    second: float,
) -> None:
    """Later in the training λ is never further from λ₁, and always between λ₀ and λ₁ (but for rounding)."""
    schedule = WeightSchedule(shape, start, end, ramp)
    earlier, later = schedule(min(first, second)), schedule(max(first, second))
    rounding = 1e-12 * max(start, end)
    assert abs(end - later) <= abs(end - earlier) + rounding
    assert min(start, end) - rounding <= later <= max(start, end) + rounding


def targeted(p99: list[float | None], target: float | None = 1.0) -> tuple[list[float], list[int | None]]:
    """λ at each step and `held_since` after each epoch, of epochs of two steps that end with these p99s.

    λ goes from 0 to 0.8 in the first 9 of 16 steps: a tenth more with each.
    """
    weight = TargetedWeight(WeightSchedule("linear", 0.0, 0.8, (0.0, 8 / 15)), target, 16)
    weights, held = [], []
    for number, value in enumerate(p99, 1):
        weights += [weight.step(), weight.step()]
        weight.consider(number, value)
        held.append(weight.held_since)
    return weights, held


def tenths(*numbers: int) -> object:
    """These, divided by ten."""
    return pytest.approx([number / 10 for number in numbers])


@pytest.mark.parametrize("p99", [[9.0] * 8, [None] * 8])
def test_weight_above_the_target_follows_its_schedule(p99: list[float | None]) -> None:
    """A norm that stays above the target, or is not measured, leaves the schedule as it is."""
    weights, held = targeted(p99)
    assert tenths(0, 1, 2, 3, 4, 5, 6, 7, *[8] * 8) == weights
    assert [None] * 8 == held
    assert weights == targeted([0.0] * 8, target=None)[0]


def test_weight_is_held_at_the_target() -> None:
    """From the end of the first epoch whose p99 is at or below it, λ stays where it was at the last step."""
    weights, held = targeted([2.0, 1.0, 0.9, 0.9])
    assert tenths(0, 1, 2, 3, 3, 3, 3, 3) == weights
    assert [None, 2, 2, 2] == held


def test_weight_goes_on_above_the_target() -> None:
    """A norm that rises again with what the network learns lets λ go on from where it was held, along the schedule."""
    weights, held = targeted([0.1, 0.5, 1.1, 1.2, 0.8, 0.7])
    assert tenths(0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5) == weights
    assert [1, 1, None, None, 5, 5] == held


def test_weight_at_its_end_is_not_held() -> None:
    """Where λ has come to its end there is nothing left to hold, but it rests."""
    weight = TargetedWeight(WeightSchedule("linear", 0.0, 0.8, (0.0, 0.0)), 1.0, 4)
    assert 0.8 == weight.step()
    weight.consider(1, 0.5)
    assert (None, True) == (weight.held_since, weight.rests)


def test_weight_rests_while_it_is_held_and_at_its_end() -> None:
    """It does not rest while it moves."""
    weight = TargetedWeight(WeightSchedule("linear", 0.0, 0.8, (0.0, 1.0)), 1.0, 4)
    rests = []
    for p99 in (2.0, 0.5, 2.0, 2.0, 2.0):
        weight.step()
        weight.consider(1, p99)
        rests.append(weight.rests)
    assert [False, True, False, False, True] == rests
