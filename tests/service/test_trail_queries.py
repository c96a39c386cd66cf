"""Pages of the trail against plain filtering and sorting of everything, and against what the database says it read."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from service.errors import InvalidInputError, RecordNotFoundError
from service.trail import queries
from service.trail.chain import RecordId
from service.trail.database import Database
from service.trail.queries import Filter, Page, one, page
from service.trail.tables import Outcome
from tests.service.trails import MIDNIGHT, Chain, Trails

VERDICTS = ("nominal", "elevated", "critical")
CALLERS = ("anna", "ben", "ben", "ben")


@pytest.fixture
def trails(database: Database, tmp_path: Path) -> Trails:
    """An empty trail of each kind of database."""
    return Trails(database, tmp_path)


def fill(trails: Trails, count: int, seed: int) -> list[Chain]:
    """Two writers, whose records are of the same times, three models, some failures; many records of one time."""
    numbers = [trails.serve("wine", 1), trails.serve("wine", 2), trails.serve("digits", 1)]
    chains = [trails.chain(), trails.chain()]
    chance = random.Random(seed)
    time = MIDNIGHT
    for k in range(count):
        time += chance.choice([0, 0, 1, 50, 1_000_000])
        chain = chains[chance.randrange(2)]
        now = max(time, chain.time)
        if chance.random() < 0.1:
            chain.fail(chance.choice([0, *numbers]), time=now)
            continue
        norm = chance.choice([None, 0.0, chance.lognormvariate(0, 1.5), 2.0])
        chain.predict(
            chance.choice(numbers),
            time=now,
            norm=norm,
            verdict=chance.choice(VERDICTS),
            caller=chance.choice(CALLERS),
            request_id=f"request-{k // 3}",
        )
    trails.flush()
    return chains


def expected(chains: list[Chain], fits: Any) -> list[str]:
    """The ids of the records that fit, newest first."""
    rows = [row for chain in chains for row in chain.records.values() if fits(row, orjson.loads(row["document"]))]
    rows.sort(key=lambda row: (row["time"], row["id"]), reverse=True)
    return [str(RecordId.of_key(row["id"])) for row in rows]


def pages(database: Database, wanted: Filter, limit: int) -> Iterator[Page]:
    """Every page of a filter."""
    cursor = None
    while True:
        with database.reading() as connection:
            found = page(connection, wanted, cursor, limit)
        yield found
        cursor = found.next
        if cursor is None:
            return


def ids(database: Database, wanted: Filter, limit: int) -> list[str]:
    """The ids of all pages."""
    return [str(record.id) for found in pages(database, wanted, limit) for record in found.records]


LATER = MIDNIGHT + 60_000_000
CASES: dict[str, tuple[Filter, Any]] = {
    "all": (Filter(), lambda row, document: True),
    "model": (Filter(model="wine"), lambda row, document: document.get("model") == "wine"),
    "unknown model": (Filter(model="beer"), lambda row, document: False),
    "version": (
        Filter(model="wine", version=2),
        lambda row, document: (document.get("model"), document.get("version")) == ("wine", 2),
    ),
    "since": (Filter(since=LATER), lambda row, document: row["time"] >= LATER),
    "until": (Filter(until=LATER), lambda row, document: row["time"] < LATER),
    "critical": (
        Filter(outcomes=frozenset({Outcome.CRITICAL})),
        lambda row, document: document.get("verdict") == "critical",
    ),
    "failures and events": (
        Filter(outcomes=frozenset({Outcome.FAILURE, Outcome.EVENT})),
        lambda row, document: document["kind"] != "prediction",
    ),
    "unjudged": (
        Filter(outcomes=frozenset({Outcome.UNJUDGED})),
        lambda row, document: document["kind"] == "prediction" and document["verdict"] is None,
    ),
    "norm": (Filter(least_norm=1.7), lambda row, document: (row["gradient_norm"] or 0) >= 1.7),
    "a norm that is there": (Filter(least_norm=2.0), lambda row, document: (row["gradient_norm"] or 0) >= 2),
    "any norm": (Filter(least_norm=0.0), lambda row, document: row["gradient_norm"] is not None),
    "beyond every norm": (Filter(least_norm=1e300), lambda row, document: False),
    "caller": (Filter(caller="anna"), lambda row, document: document.get("caller") == "anna"),
    "request": (Filter(request_id="request-7"), lambda row, document: document.get("request_id") == "request-7"),
    "model, verdict": (
        Filter(model="wine", outcomes=frozenset({Outcome.ELEVATED})),
        lambda row, document: document.get("model") == "wine" and document.get("verdict") == "elevated",
    ),
    "model, norm": (
        Filter(model="digits", least_norm=3.0),
        lambda row, document: document.get("model") == "digits" and (row["gradient_norm"] or 0) >= 3,
    ),
    "caller, model, time": (
        Filter(caller="ben", model="wine", since=LATER),
        lambda row, document: (
            (document.get("caller"), document.get("model")) == ("ben", "wine") and row["time"] >= LATER
        ),
    ),
    "everything": (
        Filter("wine", 1, MIDNIGHT, LATER, frozenset({Outcome.CRITICAL, Outcome.NOMINAL}), 0.5, None, "ben"),
        lambda row, document: (
            (document.get("model"), document.get("version"), document.get("caller")) == ("wine", 1, "ben")
            and document.get("verdict") in {"critical", "nominal"}
            and (row["gradient_norm"] or 0) >= 0.5
            and row["time"] < LATER
        ),
    ),
}


def test_pages_are_what_filtering_and_sorting_gives(trails: Trails) -> None:
    """Every filter, by pages of several sizes: each record that fits once, newest first, whole."""
    chains = fill(trails, 600, seed=1)
    for name, (wanted, fits) in CASES.items():
        truth = expected(chains, fits)
        assert truth or name in {"unknown model", "beyond every norm"}, name
        for limit in (1, 7, 1000) if len(truth) < 100 else (37, 1000):
            assert truth == ids(trails.database, wanted, limit), (name, limit)
    row = chains[0].records[5]
    with trails.database.reading() as connection:
        stored = one(connection, RecordId.of_key(row["id"]))
    assert (row["document"], row["hash"]) == (stored.document, stored.hash)
    assert {"document": orjson.loads(row["document"]), "hash": row["hash"].hex(), "id": "1-5"} == orjson.loads(
        stored.to_json()
    )


def test_no_page_is_longer_than_asked_or_short_without_need(trails: Trails) -> None:
    """All pages are full but the last, where nothing is passed over; after the last there is none."""
    fill(trails, 100, seed=2)
    lengths = [len(found.records) for found in pages(trails.database, Filter(), 17)]
    assert [17] * (len(lengths) - 1) == lengths[:-1]
    assert 102 == sum(lengths)
    assert [0] == [len(found.records) for found in pages(trails.database, Filter(caller="nobody"), 17)]
    assert [102] == [len(found.records) for found in pages(trails.database, Filter(), 102)]


def test_records_that_arrive_do_not_move_the_pages(trails: Trails) -> None:
    """What was there when the first page was read comes once, whatever is written meanwhile, by any writer."""
    chains = fill(trails, 200, seed=3)
    before = expected(chains, lambda row, document: True)
    seen = []
    late = trails.chain(MIDNIGHT)
    for found in pages(trails.database, Filter(), 23):
        seen += [str(record.id) for record in found.records]
        chains[0].predict(1)  # newer than all
        late.predict(
            2, time=max(late.time, MIDNIGHT + len(seen) * 100_000)
        )  # of a time that was passed already, or not
        trails.flush()
    assert before == [name for name in seen if name in set(before)]
    assert len(seen) == len(set(seen))


def test_a_cursor_belongs_to_its_filter(trails: Trails) -> None:
    """With another filter it is refused, and so is what is no cursor; another limit is well."""
    fill(trails, 50, seed=4)
    with trails.database.reading() as connection:
        cursor = page(connection, Filter(caller="ben"), None, 5).next
        assert cursor is not None
        assert 7 == len(page(connection, Filter(caller="ben"), cursor, 7).records)
        for other in (Filter(), Filter(caller="anna"), Filter(caller="ben", outcomes=frozenset({Outcome.CRITICAL}))):
            with pytest.raises(InvalidInputError, match="another filter"):
                page(connection, other, cursor, 5)
        for bad in ("", "x", "AAAA", cursor[:-4], cursor + "AAAA", "é"):
            with pytest.raises(InvalidInputError, match="cursor: expected `next`"):
                page(connection, Filter(caller="ben"), bad, 5)


def test_a_filter_that_means_nothing_is_refused() -> None:
    """A version of no model, and norms that are none."""
    with pytest.raises(InvalidInputError, match="version: expected the model"):
        Filter(version=1)
    for norm in (-1.0, float("nan")):
        with pytest.raises(InvalidInputError, match="min_norm"):
            Filter(least_norm=norm)


def test_a_record_that_is_not_there_is_told(trails: Trails) -> None:
    """By its id."""
    fill(trails, 3, seed=5)
    with trails.database.reading() as connection, pytest.raises(RecordNotFoundError, match="got 1-999"):
        one(connection, RecordId(1, 999))


def test_a_page_passes_over_a_bounded_number(trails: Trails, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where few records of an index fit, pages are short or empty, and their cursors lead to all that fit."""
    monkeypatch.setattr(queries, "MOST_PASSED", 50)
    number = trails.serve("wine")
    chain = trails.chain()
    for k in range(1000):
        anna, critical = k % 2 == 0, k % 2 == 1 or k in {4, 6, 500}
        chain.predict(number, caller="anna" if anna else "ben", verdict="critical" if critical else "nominal")
    trails.flush()
    wanted = Filter(caller="anna", outcomes=frozenset({Outcome.CRITICAL}))
    found = list(pages(trails.database, wanted, 400))
    assert ["1-502", "1-8", "1-6"] == [str(record.id) for part in found for record in part.records]
    assert 3 < len(found) < 30
    assert [] == found[0].records


def statements(database: Database, wanted: Filter, limit: int) -> list[str]:
    """What SQLite is asked for a page, with its values."""
    asked: list[str] = []
    with database.reading() as connection:
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(asked.append)
        page(connection, wanted, None, limit)
        driver.set_trace_callback(None)
    return [statement for statement in asked if "records" in statement]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_sqlite_reads_the_end_of_an_index(trails: Trails) -> None:
    """No statement of a page scans the table or sorts: each searches an index, newest first."""
    fill(trails, 300, seed=6)
    for name, (wanted, _) in CASES.items():
        plans = []
        for statement in statements(trails.database, wanted, 20):
            with trails.database.reading() as connection:
                driver: Any = connection.connection.driver_connection
                plans += [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}")]
        looked = [plan for plan in plans if " records " in plan]
        assert looked or name == "unknown model"
        whole = [plan for plan in looked if not plan.startswith("SEARCH records USING")]
        assert ["SCAN records USING COVERING INDEX records_by_time"] * len(whole) == whole, (name, plans)
        assert [] == [plan for plan in plans if "TEMP B-TREE" in plan], name


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_postgresql_reads_no_more_than_a_page_needs(trails: Trails) -> None:
    """No scan of the table, and not many more records than the page has, whether it knows its statistics or not."""
    fill(trails, 4_000, seed=7)
    engine = trails.database.engine.execution_options(isolation_level="AUTOCOMMIT")
    read = text("SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'records'")
    for analysed in (False, True):
        if analysed:
            with engine.connect() as connection:
                connection.execute(text("ANALYZE"))
        for name, (wanted, _) in CASES.items():
            with trails.database.reading() as connection:
                before = connection.execute(read).one()  # of pages before, not reported yet
                page(connection, wanted, None, 20)
                after = connection.execute(read).one()
            assert 0 == after.seq_tup_read - before.seq_tup_read, name
            bound = 1_500 if wanted.least_norm == 0 else 600  # some of each of 300 levels that there are
            assert after.idx_tup_fetch - before.idx_tup_fetch <= bound, name
