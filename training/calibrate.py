"""What is kept of the calibration rows: how the gradient norm is distributed, and how far out of range they lie."""

import numpy as np
from numpy.typing import NDArray

from model.manifest import QUANTILE_LEVELS, Calibration, Distribution
from training.evaluate import Answers, distribution
from training.intervals import quantile_interval
from training.temperature import Temperature

INTERVAL_LEVELS = (0.5, 0.95, 0.99)

UNSCALED = Temperature(1.0, None)


def calibrate(answers: Answers, excess: NDArray[np.float64], temperature: Temperature = UNSCALED) -> Calibration:
    """Keep the distribution of the gradient norm on rows that training did not see, and how far out those lie.

    Args:
        answers: to the calibration rows, of the network with its temperature.
        excess: of each of these rows, how far its farthest feature lies out of range: the greatest of
            `model.ranges.feature_excess`.
        temperature: what the network's logits were divided by.
    """
    norms = answers.gradient_norm
    figures: Distribution = distribution(norms)
    return Calibration(
        gradient_norm=figures,
        minimum=float(norms.min()),
        quantiles={
            f"{level:g}": float(value)
            for level, value in zip(QUANTILE_LEVELS, np.quantile(norms, QUANTILE_LEVELS), strict=True)
        },
        quantile_intervals={f"{level:g}": quantile_interval(norms, level) for level in INTERVAL_LEVELS},
        temperature=temperature.value,
        uncalibrated_error=temperature.uncalibrated_error,
        hidden_out_of_range_maximum=float(answers.hidden_out_of_range.max()),
        out_of_range_rows=float((answers.out_of_range > 0).mean()),
        out_of_range_margin=float(excess.max()),
    )
