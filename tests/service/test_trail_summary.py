"""Sketches, segments and summaries against numpy, against the reference implementation of DDSketch, and by counting."""

import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from ddsketch import DDSketch
from ddsketch.mapping import LogarithmicMapping
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from service.audit.schemas import CriticalTest, DistributionTest
from service.audit.shift import Reference
from service.sensitivity import Verdict
from service.trail import tables
from service.trail.database import Database
from service.trail.present import figures_of
from service.trail.queries import Served
from service.trail.segments import HOUR, MINUTE, MOST_RECORDS, Sums, Tally
from service.trail.shift import counts_at_knots, shift
from service.trail.sketch import ACCURACY, GAMMA, Sketch
from service.trail.summary import ALWAYS, Part, Window, summarise
from service.trail.tables import Outcome
from tests.builders import Values
from tests.service.datasets import with_norms
from tests.service.trails import MIDNIGHT, SECOND, Chain, Trails

norms_of_rows = st.lists(
    st.one_of(st.just(0.0), st.floats(2.0**-100, 2.0**100, width=32), st.floats(0.5, 2.0, width=32)), max_size=60
).map(lambda values: np.array(values, np.float32))


def sketch_of(norms: Values) -> Sketch:
    """The sketch of some norms."""
    sketch = Sketch()
    sketch.add(norms)
    return sketch


@settings(deadline=None, derandomize=True, database=None)
@given(norms_of_rows, norms_of_rows, norms_of_rows)
def test_sketches_add_up(first: Values, second: Values, third: Values) -> None:
    """In any grouping, the merged sketches are the sketch of all rows, to the byte; and what is stored reads back."""
    whole = sketch_of(np.concatenate([first, second, third])).to_bytes()
    one = sketch_of(first)
    one.merge(sketch_of(second))
    one.merge(sketch_of(third))
    other = sketch_of(third)
    other.merge(Sketch.of_bytes(sketch_of(second).to_bytes()))
    other.merge(sketch_of(first))
    assert whole == one.to_bytes() == other.to_bytes()
    assert whole == Sketch.of_bytes(whole).to_bytes()
    assert len(first) + len(second) + len(third) == one.rows


@settings(deadline=None, derandomize=True, database=None)
@given(norms_of_rows.filter(len), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_quantiles_are_within_one_percent(norms: Values, levels: list[float]) -> None:
    """Of numpy's, which interpolates between order statistics."""
    found = sketch_of(norms).quantiles(tuple(levels))
    for expected, actual in zip(np.quantile(norms.astype(np.float64), levels).tolist(), found, strict=True):
        assert math.isclose(expected, actual, rel_tol=ACCURACY * (1 + 1e-6), abs_tol=1e-300)


def test_the_buckets_are_those_of_ddsketch() -> None:
    """γ, what a bucket stands for, and every order statistic agree with the reference implementation."""
    mapping = LogarithmicMapping(ACCURACY)
    assert math.isclose(mapping.gamma, GAMMA)
    norms = np.random.default_rng(0).lognormal(0, 2, 500).astype(np.float32)
    norms[::50] = 0
    theirs = DDSketch(ACCURACY)
    for norm in norms.tolist():
        theirs.add(norm)
    for rank in range(0, len(norms), 7):
        level = rank / (len(norms) - 1)
        expected = theirs.get_quantile_value(level)
        assert expected is not None
        below = sketch_of(norms).quantiles((math.floor(level * (len(norms) - 1)) / (len(norms) - 1),))[0]
        assert math.isclose(expected, below, rel_tol=1e-9)


def test_a_sketch_is_small() -> None:
    """Some hundred bytes, for a run of records and for a million."""
    norms = np.random.default_rng(1).lognormal(0, 0.6, 1_000_000).astype(np.float32)
    assert len(sketch_of(norms[:MOST_RECORDS]).to_bytes()) < 400
    assert len(sketch_of(norms).to_bytes()) < 1_200


@settings(deadline=None, derandomize=True, database=None)
@given(norms_of_rows.filter(len))
def test_the_distribution_function_is_exact_at_the_bounds(norms: Values) -> None:
    """At each bound, the share of the rows up to it; from 0 on, up to all."""
    edges, shares = sketch_of(norms).shares()
    assert edges.tolist() == sorted(edges.tolist())
    wide = norms.astype(np.float64)
    for edge, share in zip(edges.tolist(), shares.tolist(), strict=True):
        low, high = (np.mean(wide <= edge * (1 + slack)) for slack in (-1e-12, 1e-12))
        assert low - 1e-12 <= share <= high + 1e-12
    assert 1.0 == shares[-1]


@pytest.mark.parametrize("stored", [b"", b"x" * 12, b"\x02" + bytes(11), Sketch().to_bytes()[:-3], bytes(40)])
def test_what_is_no_sketch_is_refused(stored: bytes) -> None:
    """With a message."""
    with pytest.raises(ValueError, match="sketch: expected"):
        Sketch.of_bytes(stored)


def test_a_tally_sums_up_what_came() -> None:
    """Each of what was served gets its row, over the same run, with exact sums; the next run begins behind it."""
    tally = Tally(3)
    tally.add(5, 1, 100, [0, 1], [1.5, 2.5], 0, 0)
    tally.add(7, 2, 200, [int(Outcome.UNJUDGED)], [], 0, 1)
    tally.add(8, 1, 300, [2, 2, 0], [4.0, 8.0, 0.5], 2, 2)
    tally.add(11, 0, 400, [int(Outcome.EVENT)], [], 0, 0)
    tally.add(12, 2, 500, [int(Outcome.FAILURE)], [], 0, 0)
    assert 8 == tally.records
    rows = {row["served"]: row for row in tally.seal()}
    assert {(3, 5, 12)} == {(row["writer"], row["first"], row["last"]) for row in rows.values()}
    sketch = Sketch.of_bytes(rows[1].pop("sketch"))
    assert 5 == sketch.rows
    facts = {"rows": 5, "failures": 0, "judged": 5, "elevated": 1, "critical": 2, "out_of_range": 2, "withheld": 2}
    place = {"writer": 3, "first": 5, "served": 1, "last": 12, "from_time": 100, "to_time": 300}
    assert {**place, **facts, "norm_sum": 16.5, "norm_maximum": 8.0} == rows[1]
    assert (1, 1, 1, 200, 500) == tuple(
        rows[2][name] for name in ("rows", "failures", "withheld", "from_time", "to_time")
    )
    assert (0, 0, 0.0) == (rows[0]["rows"], rows[0]["failures"], rows[0]["norm_sum"])
    assert ([], 0) == (tally.seal(), tally.records)
    tally.add(13, 1, 600, [0], [1.0], 0, 0)
    assert [(13, 13)] == [(row["first"], row["last"]) for row in tally.seal()]


def test_a_run_ends_at_a_full_hour_or_when_it_is_long() -> None:
    """At a full minute where it is half as long; not before."""
    tally = Tally(1)
    assert not tally.due(MIDNIGHT)
    tally.add(1, 1, MIDNIGHT, [0], [], 0, 0)
    assert not tally.due(MIDNIGHT + HOUR - 1)
    assert tally.due(MIDNIGHT + HOUR)
    tally.add(2, 1, MIDNIGHT, [0] * (MOST_RECORDS // 2), [], 0, 0)
    assert not tally.due(MIDNIGHT + MINUTE - 1)
    assert tally.due(MIDNIGHT + MINUTE)
    tally.add(2 + MOST_RECORDS // 2, 1, MIDNIGHT, [0] * (MOST_RECORDS // 2), [], 0, 0)
    assert tally.due(MIDNIGHT)


@pytest.fixture
def trails(database: Database, tmp_path: Path) -> Trails:
    """An empty trail of each kind of database."""
    return Trails(database, tmp_path)


MODELS = (("wine", 1), ("wine", 2), ("digits", 1))


def fill(trails: Trails, seed: int, count: int = 500) -> list[Chain]:
    """Two writers over three hours; runs of all lengths, some records that no segment covers."""
    chance = random.Random(seed)
    numbers = [trails.serve(*model) for model in MODELS]
    chains = [trails.chain(), trails.chain()]
    for _ in range(count):
        chain = chance.choice(chains)
        time = chain.time + chance.randrange(40 * SECOND)
        kind = chance.random()
        if kind < 0.1:
            chain.fail(chance.choice([0, *numbers]), time=time)
        else:
            chain.predict(
                chance.choice(numbers),
                time=time,
                norm=None
                if kind < 0.2
                else chance.choice([math.nan, 0.0, chance.lognormvariate(0, 1)])
                if kind < 0.4
                else chance.lognormvariate(0, 1),
                verdict=None if kind < 0.4 else chance.choice(list(Verdict)).value,
                out_of_range=kind > 0.9,
                decision=chance.choice(["delivered", "delivered", "withheld", "rejected", "undelivered"]),
            )
        if kind > 0.97:
            chain.seal()
    trails.flush()
    return chains


def counted(chains: list[Chain], window: Window) -> dict[tuple[Any, int], dict[str, Any]]:
    """What a summary has to say, by what was served and by bucket: read from the documents."""
    found: dict[tuple[Any, int], dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    norms: dict[tuple[Any, int], list[float]] = defaultdict(list)
    for row in [row for chain in chains for row in chain.records.values()]:
        document = orjson.loads(row["document"])
        if document["kind"] == "start" or not window.since <= row["time"] < window.until:
            continue
        model = None if document["model"] is None else (document["model"], document["version"])
        bucket = window.since if window.bucket is None else row["time"] - row["time"] % window.bucket
        sums = found[model, bucket]
        if document["kind"] == "failure":
            sums["failures"] += 1
            continue
        sums["rows"] += 1
        sums["withheld"] += document["decision"] in {"withheld", "rejected"}
        norm = (document["sensitivity"] or {}).get("gradient_norm")
        if norm is not None and document["verdict"] is not None:
            norms[model, bucket].append(norm)
            sums["judged"] += 1
            sums["out_of_range"] += document["sensitivity"]["out_of_range"]
        sums["elevated"] += document["verdict"] == "elevated"
        sums["critical"] += document["verdict"] == "critical"
    for key, values in norms.items():
        found[key]["norms"] = values
    return found


COUNTS = ("rows", "failures", "judged", "elevated", "critical", "out_of_range", "withheld")


def assert_counted(chains: list[Chain], database: Database, window: Window) -> list[Part]:
    """A summary says what counting does."""
    with database.reading() as connection:
        parts = summarise(connection, window)
    found = {(part.served and (part.served.model, part.served.version), part.begin): part.sums for part in parts}
    truth = counted(chains, window)
    assert truth.keys() == found.keys()
    for key, expected in truth.items():
        sums = found[key]
        assert [expected[name] for name in COUNTS] == [getattr(sums, name) for name in COUNTS], key
        norms = expected["norms"] or []
        assert math.isclose(math.fsum(norms), sums.norm_sum, rel_tol=1e-6, abs_tol=1e-9)
        assert math.isclose(max(norms, default=0.0), sums.norm_maximum, rel_tol=1e-6)
        assert sketch_of(np.array(norms, np.float32)).to_bytes() == sums.sketch.to_bytes()
    return parts


def test_a_summary_says_what_counting_does(trails: Trails) -> None:
    """Of the whole, of windows that cut runs in two, of windows without anything; and of every bucket of a series."""
    chains = fill(trails, seed=1)
    assert_counted(chains, trails.database, Window(0, ALWAYS))
    chance = random.Random(2)
    for _ in range(8):
        since = MIDNIGHT + chance.randrange(2 * HOUR)
        until = since + chance.randrange(1, 2 * HOUR)
        assert_counted(chains, trails.database, Window(since, until))
        assert_counted(chains, trails.database, Window(since, until, chance.choice([MINUTE, HOUR])))
    assert [] == assert_counted(chains, trails.database, Window(0, MIDNIGHT))


def told(part: Part) -> list[Any]:
    """All of a part, to be compared."""
    sums = {**vars(part.sums), "sketch": part.sums.sketch.to_bytes()}
    return [part.served, part.begin, sums]


def test_a_summary_is_of_whom_it_is_asked(trails: Trails) -> None:
    """A model, or a version, without the failures that belong to none; in the order of names and versions."""
    fill(trails, seed=3, count=100)
    with trails.database.reading() as connection:
        everything = summarise(connection, Window(0, ALWAYS))
        wine = summarise(connection, Window(0, ALWAYS), "wine")
        second = summarise(connection, Window(0, ALWAYS), "wine", 2)
        assert [] == summarise(connection, Window(0, ALWAYS), "beer")
    named = [None if part.served is None else (part.served.model, part.served.version) for part in everything]
    assert [("digits", 1), ("wine", 1), ("wine", 2), None] == named
    assert [told(part) for part in everything if part.served and part.served.model == "wine"] == list(map(told, wine))
    assert list(map(told, wine[1:])) == list(map(told, second))


def test_a_summary_without_segments_reads_the_records(trails: Trails) -> None:
    """As after a crash; and as where retention has cut a run in two: what is left of it is read."""
    chains = fill(trails, seed=4)
    with trails.database.writing() as connection:
        connection.execute(delete(tables.segments).where(tables.segments.c.writer == 2))
    assert_counted(chains, trails.database, Window(0, ALWAYS))
    first = chains[0]
    first.remove(20)
    with trails.database.writing() as connection:
        connection.execute(delete(tables.segments).where(tables.segments.c.writer == 1, tables.segments.c.first <= 20))
    first.records = {position: row for position, row in first.records.items() if position > 20}
    assert_counted(chains, trails.database, Window(0, ALWAYS))


def test_segments_are_used_where_they_can_be(trails: Trails) -> None:
    """With the records of a sealed run gone, its sums still stand: they were not read."""
    chains = fill(trails, seed=5, count=200)
    for chain in chains:
        chain.seal()
    with trails.database.writing() as connection:
        connection.execute(delete(tables.records))
    assert_counted(chains, trails.database, Window(0, ALWAYS))


def test_texts_in_a_document_do_not_count(trails: Trails) -> None:
    """A caller who is called as a part of a document looks changes no figure."""
    number = trails.serve("wine")
    chain = trails.chain()
    chain.predict(number, caller='"out_of_range":true,"decision":"withheld"', request_id='"decision":"rejected"')
    trails.flush()
    (part,) = assert_counted([chain], trails.database, Window(0, ALWAYS))
    assert (0, 0) == (part.sums.out_of_range, part.sums.withheld)


def test_the_figures_are_those_of_the_sums() -> None:
    """Shares are of what could be of the kind; a quantile is never above the maximum; nothing is divided by 0."""
    sums = Sums()
    norms = np.array([1.0] * 90 + [2.0] * 9 + [10.0], np.float32)
    sums.add(np.array([0] * 90 + [1] * 9 + [2], np.int8), norms, 5, 20)
    sums.add(np.array([3, 3, 4], np.int8), np.array([math.nan], np.float32), 0, 0)
    figures = figures_of(sums)
    assert (102, 1, 100) == (figures.predictions, figures.failures, figures.judged)
    assert (20, 20 / 102) == (figures.withheld.rows, figures.withheld.share)
    assert (5, 0.05) == (figures.out_of_range.rows, figures.out_of_range.share)
    assert {"nominal": 90, "elevated": 9, "critical": 1} == {
        verdict.value: counted.rows for verdict, counted in figures.verdicts.items()
    }
    norm = figures.gradient_norm
    assert norm is not None
    assert math.isclose(1.18, norm.mean)
    assert 10.0 == norm.maximum
    quantiles = np.quantile(norms, (0.5, 0.9, 0.95, 0.99)).tolist()
    for expected, actual in zip(quantiles, (norm.p50, norm.p90, norm.p95, norm.p99), strict=True):
        assert math.isclose(expected, actual, rel_tol=ACCURACY)
    assert norm.tail_ratio is not None
    assert math.isclose(norm.p99 / 1.18, norm.tail_ratio)
    empty = figures_of(Sums())
    assert (None, None, 0) == (empty.gradient_norm, empty.out_of_range.share, empty.predictions)
    flat = Sums()
    flat.add(np.zeros(3, np.int8), np.zeros(3, np.float32), 0, 0)
    assert flat.sketch.zeros == 3
    assert (0.0, None) == (figures_of(flat).gradient_norm.p99, figures_of(flat).gradient_norm.tail_ratio)  # type: ignore[union-attr]


def lognormal(seed: int, rows: int, factor: float = 1.0) -> Values:
    """Gradient norms as networks have them."""
    return (factor * np.random.default_rng(seed).lognormal(0, 0.4, rows)).astype(np.float32)


def of_rows(norms: Values, critical: int = 0) -> Sums:
    """Sums of predicted rows."""
    sums = Sums()
    outcomes = np.zeros(len(norms), np.int8)
    outcomes[:critical] = 2
    sums.add(outcomes, norms, 0, 0)
    return sums


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_the_distance_is_nearly_that_of_the_rows(seed: int, factor: float) -> None:
    """What the sketch cannot tell is within a bucket; and it finds no distance that is not there."""
    calibration = lognormal(100 + seed, 2_000)
    reference = Reference(with_norms(calibration), float(np.quantile(calibration, 0.99)))
    rows = lognormal(200 + seed, 5_000, factor)
    exact, _ = reference.distance(reference.counts(rows))
    known, _ = reference.distance(counts_at_knots(sketch_of(rows), reference))
    assert exact - 0.02 <= known <= exact + 0.002


def test_rows_of_one_norm_are_no_shift() -> None:
    """Half of the calibration rows have the same norm, and half of the window's: not seen as a distance."""
    calibration = lognormal(1, 2_000)
    calibration[:1000] = 1.2345
    reference = Reference(with_norms(calibration), float(np.quantile(calibration, 0.99)))
    rows = lognormal(2, 4_000)
    rows[:2000] = 1.2345
    known, _ = reference.distance(counts_at_knots(sketch_of(rows), reference))
    assert known < 0.03


def both_tests(sums: Sums, reference: Reference) -> tuple[DistributionTest, CriticalTest]:
    """Both tests, which there are."""
    test = shift(sums, reference, 0.15)
    assert test is not None
    assert test.distribution is not None
    return test.distribution, test.critical


def test_a_shift_is_found_and_chance_is_not() -> None:
    """Rows of the calibration set's kind hardly ever; steeper ones always; critical ones by their share; few never."""
    calibration = lognormal(7, 2_000)
    critical_above = float(np.quantile(calibration, 0.99))
    reference = Reference(with_norms(calibration), critical_above)
    alarms = 0
    for seed in range(100):
        rows = lognormal(1_000 + seed, 1_000)
        alarms += any(test.shifted for test in both_tests(of_rows(rows, int((rows > critical_above).sum())), reference))
    assert alarms <= 2
    steep = lognormal(8, 1_000, 1.5)
    distribution, _ = both_tests(of_rows(steep), reference)
    assert distribution.shifted
    exact, _ = reference.distance(reference.counts(steep))
    assert abs(exact - distribution.statistic) < 0.02
    distribution, critical = both_tests(of_rows(lognormal(9, 1_000), critical=100), reference)
    assert (False, True, 100) == (distribution.shifted, critical.shifted, critical.rows)
    assert shift(of_rows(lognormal(9, 29)), reference, 0.15) is None
    assert shift(Sums(), reference, 0.15) is None


def test_two_bundles_of_one_version_are_told_apart(trails: Trails) -> None:
    """By their digests."""
    first, second = trails.serve("wine", 1, "a" * 64), trails.serve("wine", 1, "b" * 64)
    chain = trails.chain()
    chain.predict(first)
    chain.predict(second)
    trails.flush()
    with trails.database.reading() as connection:
        parts = summarise(connection, Window(0, ALWAYS), "wine", 1)
    assert [Served("wine", 1, "a" * 64), Served("wine", 1, "b" * 64)] == [part.served for part in parts]
