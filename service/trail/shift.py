"""Are the rows of a window of the calibration set's kind? The tests of an audit, on the sketch of a summary.

A sketch knows the distribution function F_n of the gradient norms at the bounds of its buckets exactly, and the tests
ask for it at the calibration set's knots (`service.audit.shift`). Within a bucket, rows are taken to be spread as the
calibration rows are, so that F_n − F_m at a knot lies between its values at the bucket's two bounds: the distance is
never more than what there is at some bound, and a difference that begins and ends within 2 % of a norm is not seen.
"""

import numpy as np
from numpy.typing import NDArray

from service.audit.schemas import Shift
from service.audit.shift import Counts, Reference, compare
from service.sensitivity import SLACK
from service.trail.segments import Sums
from service.trail.sketch import Sketch


def shift(sums: Sums, reference: Reference, least_distance: float) -> Shift | None:
    """Test the rows of a window against the calibration set.

    Args:
        sums: of the window.
        reference: the calibration set of the very bundle that served them.
        least_distance: Kolmogorov-Smirnov distance from which on a shift matters.

    Returns:
        Both tests; None where there are too few rows.
    """
    if not sums.judged:
        return None
    return compare(reference, counts_at_knots(sums.sketch, reference), sums.critical, least_distance)


def counts_at_knots(sketch: Sketch, reference: Reference) -> Counts:
    """How many rows, at least one, lie below and up to each knot."""
    rows = sketch.rows
    edges, shares = sketch.shares()
    known = np.array([reference.share_up_to(edge) for edge in edges])
    up_to, below = (
        np.rint(rows * _between(norms, edges, shares, known, reference)).astype(np.int64)
        for norms in (reference.knots * (1 + SLACK), reference.knots * (1 - 2 * SLACK))
    )
    below[reference.knots == 0] = 0
    return Counts(rows, np.minimum(below, up_to), up_to)


def _between(
    norms: NDArray[np.float64],
    edges: NDArray[np.float64],
    shares: NDArray[np.float64],
    known: NDArray[np.float64],
    reference: Reference,
) -> NDArray[np.float64]:
    """F_n at norms, [norms]: between the bounds of a bucket, in proportion to the calibration rows there."""
    high = np.clip(np.searchsorted(edges, norms, side="left"), 1, len(edges) - 1)
    low = high - 1
    here = np.array([reference.share_up_to(norm) for norm in norms])
    span = known[high] - known[low]
    part = np.divide(here - known[low], span, out=np.full(len(norms), 0.5), where=span > 0)
    values: NDArray[np.float64] = shares[low] + np.clip(part, 0, 1) * (shares[high] - shares[low])
    return values
