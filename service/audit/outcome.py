"""What an audit comes to, in a word and in plain sentences. Pure."""

from service.audit.schemas import CriticalTest, DistributionTest, Outcome, Shift
from service.audit.shift import ALPHA, LEAST_ROWS


def outcome(rows: int, failed: int, shift: Shift | None) -> tuple[Outcome, list[str]]:
    """The verdict on a data set, with its reasons.

    It is shifted where one of the two tests says so. A difference that would matter, but that so few rows may show by
    chance, is no consistency: then there are too few rows.

    Args:
        rows: of the data.
        failed: of these, how many the network overflowed on.
        shift: the tests; None where there were too few rows for them.
    """
    reasons = [f"The network overflows on {failed:,} of {rows:,} rows; they count as critical."] if failed else []
    if shift is None:
        reasons.insert(
            0, f"A test needs at least {LEAST_ROWS} rows, audited and in the calibration set; here are fewer."
        )
        return Outcome.INSUFFICIENT, reasons
    found = [_of_critical(shift.critical)]
    if shift.distribution is not None:
        found.insert(0, _of_distribution(shift.distribution))
    verdicts = [verdict for verdict, _ in found]
    reasons = [reason for _, reason in found] + reasons
    for verdict in (Outcome.SHIFTED, Outcome.INSUFFICIENT):
        if verdict in verdicts:
            return verdict, reasons
    return Outcome.CONSISTENT, reasons


def _of_distribution(test: DistributionTest) -> tuple[Outcome, str]:
    distance = (
        f"The gradient norms lie {test.statistic:.3f} from those of the calibration set (Kolmogorov-Smirnov distance, "
        f"greatest at a norm of {test.at_norm:.4g}; p = {_p(test.p_value)})"
    )
    large, significant = test.statistic >= test.least_statistic, test.p_value < ALPHA / 2
    return _judged(
        distance, f"the {test.least_statistic:g} from which on it matters", large=large, significant=significant
    )


def _of_critical(test: CriticalTest) -> tuple[Outcome, str]:
    share = (
        f"{test.share:.2%} of the rows are critical, where the calibration set lets {test.expected_share:.2%} expect "
        f"(p = {_p(test.p_value)})"
    )
    large = test.share - test.expected_share >= test.least_excess
    significant = test.p_value < ALPHA / 2
    limit = f"the {test.expected_share + test.least_excess:.2%} from which on it matters"
    return _judged(share, limit, large=large, significant=significant)


def _judged(figure: str, limit: str, *, large: bool, significant: bool) -> tuple[Outcome, str]:
    if large and significant:
        return Outcome.SHIFTED, f"{figure}: at or above {limit}, and more than chance explains."
    if large:
        return Outcome.INSUFFICIENT, f"{figure}: at or above {limit}, but with so few rows it may be chance."
    if significant:
        return Outcome.CONSISTENT, f"{figure}: more than chance explains, but below {limit}."
    return Outcome.CONSISTENT, f"{figure}: no more than chance explains, and below {limit}."


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-6 else "0.000001 at most"
