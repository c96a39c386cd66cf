"""What becomes of critical rows, without HTTP: which policies are stricter, and what one decides of real rows."""

from functools import cache

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.manifest import Manifest
from model.outputs import Plan
from service.computed import Computed, Rows
from service.errors import CriticalInputError, InvalidInputError
from service.policy import Code, Policy, check, decide
from service.sensitivity import VERDICTS, Judge, Verdict
from service.settings import OnCritical
from tests.builders import Values, export_network, make_manifest, make_network, make_rows, make_session, run_session

ORDER: tuple[OnCritical, ...] = ("report", "abstain", "reject")
ELEVATED, CRITICAL = 95.0, 99.0
percentiles = st.floats(0, 100)


class Model:
    """A network with its graph, its manifest and the judge of its deployment."""

    def __init__(self, *, bound: float | None) -> None:
        self.network = make_network(bound=bound)
        graph = export_network(self.network)
        self.session: onnxruntime.InferenceSession = make_session(graph)
        self.manifest: Manifest = make_manifest(self.network, model=graph)
        self.judge = Judge(self.manifest, ELEVATED, CRITICAL)

    def rows(self, count: int, *, seed: int = 3, spread: float = 1.2) -> Values:
        """Rows around the mean, some of them critical."""
        return make_rows(self.network, count, seed=seed, spread=spread)

    def compute(self, x: Values) -> Computed:
        """One batch, with every output."""
        return Computed(x, run_session(self.session, x), self.judge)

    def verdicts(self, x: Values, elevated: float, critical: float) -> list[Verdict]:
        """What a deployment with other thresholds says of rows."""
        judgement = Judge(self.manifest, elevated, critical).judge(x, run_session(self.session, x))
        return [VERDICTS[place] for place in judgement.verdict.tolist()]


@cache
def tame() -> Model:
    """Never overflows."""
    return Model(bound=3.0)


@cache
def wild() -> Model:
    """A polynomial without a bound."""
    return Model(bound=None)


def one(computed: Computed) -> Rows:
    """A request that had a batch to itself."""
    return Rows([(computed, 0, len(computed.x))])


def verdicts(rows: Rows) -> list[Verdict]:
    """The verdict of each row of a request."""
    return [VERDICTS[place] for place in rows.verdicts().tolist()]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy that the settings allow."""
    elevated, critical = sorted((draw(percentiles), draw(percentiles)))
    return Policy(draw(st.sampled_from(ORDER)), elevated, critical)


def as_strict(policy: Policy, other: Policy) -> bool:
    """Whether a policy is nowhere laxer than another."""
    return (
        ORDER.index(policy.on_critical) >= ORDER.index(other.on_critical)
        and policy.elevated_percentile <= other.elevated_percentile
        and policy.critical_percentile <= other.critical_percentile
    )


@pytest.mark.parametrize("deployed", ORDER)
@pytest.mark.parametrize("asked", ORDER)
def test_a_request_may_only_be_stricter(deployed: OnCritical, asked: OnCritical) -> None:
    """Report, abstain, reject: from lenient to strict; as strict as the deployment is allowed, laxer is refused."""
    policy = Policy(deployed, 90.0, 98.0)
    if ORDER.index(asked) >= ORDER.index(deployed):
        assert Policy(asked, 90.0, 98.0) == policy.stricter(asked)
        return
    with pytest.raises(InvalidInputError) as caught:
        policy.stricter(asked, where="/parameters")
    expected = f"expected one at least as strict as {deployed!r}, got {asked!r}"
    assert f"/parameters/on_critical: {expected}" == str(caught.value)
    assert [("/parameters/on_critical", expected)] == [(fault.where, fault.message) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("elevated", "critical", "expected"),
    [
        (None, None, (90.0, 98.0)),
        (90.0, 98.0, (90.0, 98.0)),
        (80.0, None, (80.0, 98.0)),
        (None, 95.0, (90.0, 95.0)),
        (None, 85.0, (85.0, 85.0)),
        (None, 0.0, (0.0, 0.0)),
        (0.0, None, (0.0, 98.0)),
        (70.0, 70.0, (70.0, 70.0)),
    ],
)
def test_lower_percentiles_are_stricter(
    elevated: float | None, critical: float | None, expected: tuple[float, float]
) -> None:
    """What is not asked for stays, but that no row is critical without being above the elevated percentile."""
    policy = Policy("abstain", 90.0, 98.0).stricter(None, elevated, critical)
    assert Policy("abstain", *expected) == policy


@pytest.mark.parametrize(
    ("elevated", "critical", "messages"),
    [
        (90.1, None, ["/elevated_percentile: expected one at least as strict as the service's 90, got 90.1"]),
        (None, 99.0, ["/critical_percentile: expected one at least as strict as the service's 98, got 99"]),
        (
            100.0,
            100.0,
            [
                "/elevated_percentile: expected one at least as strict as the service's 90, got 100",
                "/critical_percentile: expected one at least as strict as the service's 98, got 100",
            ],
        ),
        (80.0, 70.0, ["/elevated_percentile: expected at most critical_percentile, 70, got 80"]),
        (float("nan"), None, ["/elevated_percentile: expected one at least as strict as the service's 90, got nan"]),
    ],
)
def test_laxer_thresholds_are_refused(elevated: float | None, critical: float | None, messages: list[str]) -> None:
    """Each by its name, with what was expected and what came; and so are two that are not in order."""
    with pytest.raises(InvalidInputError) as caught:
        Policy("report", 90.0, 98.0).stricter("reject", elevated, critical)
    assert messages == [f"{fault.where}: {fault.message}" for fault in caught.value.faults]
    assert "; ".join(messages) == str(caught.value)


@given(
    deployed=policies(),
    on_critical=st.none() | st.sampled_from(ORDER),
    elevated=st.none() | percentiles,
    critical=st.none() | percentiles,
)
@settings(deadline=None, derandomize=True, max_examples=500)
def test_a_request_never_gets_a_laxer_policy(
    deployed: Policy, on_critical: OnCritical | None, elevated: float | None, critical: float | None
) -> None:
    """Whatever it asks for: it gets that, as strict as the deployment and in order, or is refused."""
    laxer = (
        (on_critical is not None and ORDER.index(on_critical) < ORDER.index(deployed.on_critical))
        or (elevated is not None and elevated > deployed.elevated_percentile)
        or (critical is not None and critical > deployed.critical_percentile)
    )
    disordered = elevated is not None and critical is not None and elevated > critical
    try:
        policy = deployed.stricter(on_critical, elevated, critical)
    except InvalidInputError:
        assert laxer or disordered
        return
    assert not laxer
    assert not disordered
    assert as_strict(policy, deployed)
    assert policy.elevated_percentile <= policy.critical_percentile
    assert on_critical in {None, policy.on_critical}
    assert elevated in {None, policy.elevated_percentile}
    assert critical in {None, policy.critical_percentile}


def test_a_request_that_asks_for_nothing_has_no_policy_of_its_own() -> None:
    """None where nothing is to be done, so that nothing is; a deployment that acts does so for every request."""
    usual = Policy()
    assert usual.of_request() is None
    assert usual.of_request("report", 95.0, 99.0) is None
    assert Policy("report", 95.0, 98.0) == usual.of_request(critical_percentile=98.0)
    assert Policy("abstain", 95.0, 99.0) == usual.of_request("abstain")
    for on_critical in ORDER[1:]:
        strict = Policy(on_critical)
        assert strict is strict.of_request()
        assert strict == strict.of_request(on_critical)


@pytest.mark.parametrize("plan", Plan)
def test_a_policy_that_acts_needs_sensitivity(plan: Plan) -> None:
    """The prediction alone does not tell which rows are critical; any other plan does."""
    assert plan is Policy("report", 50.0, 60.0).plan(plan)
    expected = Plan.SENSITIVITY if plan is Plan.PREDICT else plan
    assert [expected] * 2 == [Policy(on_critical).plan(plan) for on_critical in ORDER[1:]]


@pytest.mark.parametrize(("elevated", "critical"), [(95.0, 99.0), (50.0, 80.0), (0.0, 0.0), (33.3, 95.0), (95.0, 97.0)])
@pytest.mark.parametrize("on_critical", ORDER)
@pytest.mark.parametrize("withholds", [True, False])
def test_what_is_decided_of_each_row(
    on_critical: OnCritical, elevated: float, critical: float, *, withholds: bool
) -> None:
    """Critical rows, by a judge with the policy's percentiles, are delivered, withheld, or cost the whole request."""
    x = tame().rows(60)
    expected = tame().verdicts(x, elevated, critical)
    flags = [verdict is Verdict.CRITICAL for verdict in expected]
    assert 0 < sum(flags) < 60 or critical == 0
    rows = one(tame().compute(x))
    policy = Policy(on_critical, elevated, critical)
    decision = decide(policy, rows, withholds=withholds)
    assert policy is decision.policy
    assert expected == verdicts(rows)
    assert flags == decision.critical.tolist()
    match on_critical:
        case "report":
            codes = [Code.DELIVERED] * 60
        case "abstain" if withholds:
            codes = [Code.WITHHELD if flag else Code.DELIVERED for flag in flags]
        case _:
            codes = [Code.REJECTED] * 60
    assert np.dtype(np.int8) == decision.codes.dtype
    assert codes == decision.codes.tolist()
    assert [row for row, code in enumerate(codes) if code == Code.WITHHELD] == decision.withheld()
    assert codes.count(Code.REJECTED) == decision.rejected


def test_nothing_is_refused_where_no_row_is_critical() -> None:
    """Rows at the mean are delivered under every policy."""
    x = tame().rows(5, spread=0.05)
    assert {Verdict.NOMINAL} == set(tame().verdicts(x, ELEVATED, CRITICAL))
    for on_critical in ORDER:
        rows = one(tame().compute(x))
        decision = decide(Policy(on_critical), rows, withholds=False)
        check(decision, rows, "/instances")
        assert [Code.DELIVERED] * 5 == decision.codes.tolist()


def test_thresholds_of_a_request_leave_the_rest_of_its_batch_alone() -> None:
    """Its own rows are judged anew, in every piece; the batches' judgement and a neighbour's verdicts stay."""
    x = tame().rows(90)
    batches = [tame().compute(x[:30]), tame().compute(x[30:60]), tame().compute(x[60:])]
    strict = Rows([(batches[0], 20, 30), (batches[1], 0, 30), (batches[2], 0, 7)])
    neighbour = Rows([(batches[2], 7, 30)])
    decision = decide(Policy("abstain", 40.0, 70.0), strict, withholds=True)
    expected = tame().verdicts(x[20:67], 40.0, 70.0)
    usual = tame().verdicts(x, ELEVATED, CRITICAL)
    assert expected == verdicts(strict)
    assert expected != usual[20:67]
    assert [k for k, verdict in enumerate(expected) if verdict is Verdict.CRITICAL] == decision.withheld()
    assert usual[67:] == verdicts(neighbour)
    assert usual == [VERDICTS[place] for batch in batches for place in batch.judgement.verdict.tolist()]
    np.testing.assert_array_equal(
        np.concatenate([batch.judgement.percentile for batch in batches])[20:67],
        strict.judged(lambda judgement: judgement.percentile),
    )


def test_a_row_that_overflows_is_critical() -> None:
    """Even where its norm is NaN, which is above nothing, and its place is in range."""
    x = wild().rows(6, spread=0.1)
    computed = wild().compute(x)
    for name, row, bad in (("logits", 1, np.nan), ("gradient_norm", 3, np.nan), ("jacobian", 4, -np.inf)):
        computed.outputs[name] = computed.outputs[name].copy()
        computed.outputs[name][row] = bad
    rows = one(computed)
    decision = decide(Policy("abstain"), rows, withholds=True)
    assert [1, 3, 4] == decision.withheld()
    decision = decide(Policy("reject"), rows, withholds=True)
    with pytest.raises(CriticalInputError) as caught:
        check(decision, rows, "/instances")
    assert [f"/instances/{row}" for row in (1, 3, 4)] == [fault.where for fault in caught.value.faults]
    assert 1 == len({fault.message for fault in caught.value.faults})
    assert "overflows" in caught.value.faults[0].message


def test_without_sensitivity_every_row_is_delivered() -> None:
    """Only thresholds were asked for, and only predictions computed: there is nothing to hold against them."""
    x = tame().rows(20)
    computed = tame().compute(x)
    predictions = {name: computed.outputs[name] for name in ("logits", "probabilities")}
    decision = decide(Policy("report", 0.0, 0.0), one(Computed(x, predictions, tame().judge)), withholds=True)
    assert ([Code.DELIVERED] * 20, [False] * 20) == (decision.codes.tolist(), decision.critical.tolist())


def test_a_refusal_names_the_first_critical_rows_and_why() -> None:
    """Ten at most, each with its norm and the threshold, or that it is out of range, or both."""
    x = tame().rows(40, spread=0.3)
    x[25:] = tame().rows(15, spread=12.0)
    outputs = run_session(tame().session, x)
    levels, norms = tame().manifest.calibration.curve()
    threshold = float(np.interp(0.99, levels, norms))
    rows = one(tame().compute(x))
    decision = decide(Policy("reject"), rows, withholds=True)
    assert list(range(25, 40)) == np.flatnonzero(decision.critical).tolist()
    with pytest.raises(CriticalInputError) as caught:
        check(decision, rows, "/instances")
    expected = []
    for row in range(25, 35):
        norm = float(outputs["gradient_norm"][row])
        steep = (
            f"expected a gradient norm of at most {threshold:.4g}, percentile 99 of the calibration set, got {norm:.4g}"
        )
        far = "expected a row in the range that the model knows, got one out of range"
        reasons = [steep] * (norm > threshold) + [far] * bool(rows.judged(lambda judged: judged.out_of_range)[row])
        expected.append((f"/instances/{row}", "; ".join(reasons)))
    assert expected == [(fault.where, fault.message) for fault in caught.value.faults]
    assert {1, 2} == {len(message.split("; ")) for _, message in expected}
    assert (
        "expected no critical row, since on_critical is 'reject'; got 15 of 40 (rows 25, 26, 27, 28, 29, 30, 31, 32, "
        f"33, 34, …). Row 25: {expected[0][1]}" == str(caught.value)
    )


def test_a_refusal_says_where_abstaining_was_asked_for() -> None:
    """An answer that cannot leave out a row is refused, and says that it is for that."""
    x = tame().rows(2, spread=0.1)
    x[1] += 100
    rows = one(tame().compute(x))
    decision = decide(Policy("abstain"), rows, withholds=False)
    with pytest.raises(CriticalInputError, match=r"on_critical is 'abstain', and .* cannot leave out .* \(row 1\)"):
        check(decision, rows, "/inputs/0/data")
