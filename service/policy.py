"""What becomes of critical rows: the policy of a deployment, what a request makes of it, and what is decided by it.

A row is critical by its verdict (`service.sensitivity`), or because the network overflows on it. Its prediction is
reported like any other, withheld, or the whole request is refused. A request may only be stricter than the deployment:

    report < abstain < reject, and lower percentiles are stricter than higher ones.

Pure: no HTTP. Not covered: whether the prediction of a row that is not critical is right. A verdict says where a row
lies among the calibration rows, and a policy can be no better than that.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from model.outputs import Plan
from service.computed import Rows
from service.errors import FAULTS_AT_MOST, CriticalInputError, Fault, InvalidInputError
from service.sensitivity import CRITICAL
from service.settings import OnCritical

STRICTNESS: tuple[OnCritical, ...] = get_args(OnCritical)


class Code(IntEnum):
    """What is decided of a row."""

    DELIVERED = 0
    WITHHELD = 1
    """The answer tells its sensitivity, but not its prediction."""
    REJECTED = 2
    """Its request is refused, for this row or for another one."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of critical rows, and which are critical."""

    on_critical: OnCritical = "report"
    elevated_percentile: float = 95.0
    """Of the calibration set, 0 to 100: a row of a greater gradient norm is elevated."""
    critical_percentile: float = 99.0
    """The same for critical; never below `elevated_percentile`."""

    @property
    def acts(self) -> bool:
        """Whether a critical row fares otherwise than any other: then sensitivity must be computed."""
        return self.on_critical != "report"

    def stricter(
        self,
        on_critical: OnCritical | None = None,
        elevated_percentile: float | None = None,
        critical_percentile: float | None = None,
        where: str = "",
    ) -> "Policy":
        """The policy of a request that asks for something else than this one.

        Args:
            on_critical: what it asks for; None, as for the others: for nothing.
            elevated_percentile: the same.
            critical_percentile: the same; where it is lower than an `elevated_percentile` that was not asked for, both
                are.
            where: JSON pointer of what holds the three, for messages.

        Raises:
            InvalidInputError: one is laxer than this policy, or the percentiles are not in order.
        """
        faults = []
        if on_critical is not None and STRICTNESS.index(on_critical) < STRICTNESS.index(self.on_critical):
            faults.append(_laxer(f"{where}/on_critical", repr(self.on_critical), repr(on_critical)))
        for name, asked, deployed in (
            ("elevated_percentile", elevated_percentile, self.elevated_percentile),
            ("critical_percentile", critical_percentile, self.critical_percentile),
        ):
            if asked is not None and not asked <= deployed:
                faults.append(_laxer(f"{where}/{name}", f"the service's {deployed:g}", f"{asked:g}"))
        critical = self.critical_percentile if critical_percentile is None else critical_percentile
        elevated = min(self.elevated_percentile, critical) if elevated_percentile is None else elevated_percentile
        if not faults and elevated > critical:
            place = f"{where}/elevated_percentile"
            faults.append(Fault(place, f"expected at most critical_percentile, {critical:g}, got {elevated:g}"))
        if faults:
            raise InvalidInputError("; ".join(f"{fault.where}: {fault.message}" for fault in faults), tuple(faults))
        return Policy(on_critical or self.on_critical, elevated, critical)

    def of_request(
        self,
        on_critical: OnCritical | None = None,
        elevated_percentile: float | None = None,
        critical_percentile: float | None = None,
        where: str = "",
    ) -> "Policy | None":
        """The same for a request that may ask for nothing; None where every row is delivered by the usual thresholds.

        Raises:
            InvalidInputError: as `stricter` does.
        """
        if on_critical is None and elevated_percentile is None and critical_percentile is None:
            return self if self.acts else None
        policy = self.stricter(on_critical, elevated_percentile, critical_percentile, where)
        return policy if policy.acts or policy != self else None

    def plan(self, plan: Plan) -> Plan:
        """The plan from which a request can be answered, and decided: one with sensitivity where this policy acts."""
        return Plan.SENSITIVITY if self.acts and plan is Plan.PREDICT else plan


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What a policy makes of the rows of a request."""

    policy: Policy
    codes: NDArray[np.int8]
    """Of each row one of Code [rows]."""
    critical: NDArray[np.bool_]
    """Which rows are critical [rows]; none where no sensitivity was computed."""

    def withheld(self) -> list[int]:
        """The rows that are withheld."""
        rows: list[int] = np.flatnonzero(self.codes == Code.WITHHELD).tolist()
        return rows

    @property
    def rejected(self) -> int:
        """How many rows are rejected: none, or all of the request."""
        return len(self.codes) if len(self.codes) and self.codes[0] == Code.REJECTED else 0


def decide(policy: Policy, rows: Rows, *, withholds: bool) -> Decision:
    """Decide on the rows of a request, whose verdicts follow the policy's thresholds from then on.

    Args:
        policy: of the request.
        rows: what was computed, by a plan that the policy agrees with.
        withholds: whether the answer can leave a prediction out; else `abstain` refuses the request as `reject` does.
    """
    judge, count = rows.judge, len(rows)
    critical = np.zeros(count, np.bool_)
    if "gradient_norm" in rows.outputs:
        if (policy.elevated_percentile, policy.critical_percentile) != (
            judge.elevated_percentile,
            judge.critical_percentile,
        ):
            rows.rejudge(judge.norm_at(policy.elevated_percentile), judge.norm_at(policy.critical_percentile))
        critical = rows.verdicts() == CRITICAL
        critical[rows.overflowed()] = True
    codes = np.zeros(count, np.int8)
    if policy.acts and critical.any():
        if withholds and policy.on_critical == "abstain":
            codes[critical] = Code.WITHHELD
        else:
            codes[:] = Code.REJECTED
    return Decision(policy, codes, critical)


def check(decision: Decision, rows: Rows, where: str) -> None:
    """Refuse a request whose rows were rejected.

    Args:
        decision: on the rows.
        rows: what was computed.
        where: JSON pointer of the rows, for messages.

    Raises:
        CriticalInputError: they were; it names at most FAULTS_AT_MOST of the critical rows.
    """
    if not decision.rejected:
        return
    critical = np.flatnonzero(decision.critical).tolist()
    named = critical[:FAULTS_AT_MOST]
    faults = tuple(Fault(f"{where}/{row}", why) for row, why in zip(named, _why(decision, rows, named), strict=True))
    numbers = f"row{'s' if len(named) > 1 else ''} {', '.join(map(str, named))}"
    numbers += ", …" if len(critical) > len(named) else ""
    because = f"since on_critical is {decision.policy.on_critical!r}"
    if decision.policy.on_critical == "abstain":
        because += ", and this answer cannot leave out the prediction of a row"
    raise CriticalInputError(
        f"expected no critical row, {because}; got {len(critical):,} of {len(rows):,} ({numbers}). Row {named[0]}: "
        f"{faults[0].message}",
        faults,
    )


def _why(decision: Decision, rows: Rows, critical: list[int]) -> list[str]:
    """Why some rows are critical."""
    percentile = decision.policy.critical_percentile
    threshold = rows.judge.norm_at(percentile)
    norms = rows.output("gradient_norm")[critical]
    out_of_range = rows.judged(lambda judgement: judgement.out_of_range)[critical].tolist()
    overflowed = set(rows.overflowed())
    whys = []
    for row, norm, above, outside in zip(critical, norms, norms > threshold, out_of_range, strict=True):
        if row in overflowed:
            whys.append("expected finite numbers, got NaN or infinity: the network overflows there")
            continue
        reasons = []
        if above:
            expected = f"at most {threshold:.4g}, percentile {percentile:g} of the calibration set"
            reasons.append(f"expected a gradient norm of {expected}, got {norm:.4g}")
        if outside:
            reasons.append("expected a row in the range that the model knows, got one out of range")
        whys.append("; ".join(reasons))
    return whys


def _laxer(where: str, expected: str, got: str) -> Fault:
    return Fault(where, f"expected one at least as strict as {expected}, got {got}")
