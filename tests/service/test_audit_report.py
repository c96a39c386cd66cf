"""The page of an audit: every figure of the report is on it, it needs nothing else, and says what it does not show."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.outputs import Task
from service.audit.auditor import Options, audit
from service.audit.commands.run import summary
from service.audit.local import open_bundle
from service.audit.page.render import audit_page
from service.audit.schemas import AuditReport, Outcome
from service.audit.table import opened
from tests.builders import Values
from tests.service.support import AMOUNT, CLASSES, MODELS, WILD, Truth, make_settings

ROWS = 300
VOID = {"meta", "link", "br", "img", "input", "use", "path"}


def write_table(path: Path, truth: Truth, rows: Values, *, seed: int = 0) -> Path:
    """Rows with labels, of which about a fifth are wrong."""
    generator = np.random.default_rng(seed)
    outputs = truth.run(rows)
    if truth.manifest.task is Task.REGRESSION:
        labels = [repr(float(value)) for value in outputs["value"] + generator.standard_normal(len(rows))]
    else:
        classes = truth.manifest.target.classes
        best = outputs["probabilities"].argmax(axis=1)
        best = np.where(generator.random(len(rows)) < 0.2, (best + 1) % len(classes), best)
        labels = [classes[place] for place in best]
    names = [feature.name for feature in truth.manifest.features]
    lines = [",".join(["id", *names, "true label"])]
    lines += [
        ",".join([str(k), *(repr(float(value)) for value in row), label])
        for k, (row, label) in enumerate(zip(rows, labels, strict=True))
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def report_of(repository: Path, folder: Path, model: str, **changes: Any) -> AuditReport:
    """A real audit of random rows."""
    truth = Truth(repository / model / "1")
    rows = truth.rows(changes.get("rows", ROWS), seed=5, spread=changes.get("spread", 0.9)) * changes.get("times", 1)
    table = write_table(folder / f"{model} & co.csv", truth, rows)
    local = open_bundle(truth.path, make_settings(repository))
    options = Options(label="true label" if changes.get("labels", True) else None)
    with opened(table) as data:
        return audit(local.model, local.execution, data, options)


@pytest.fixture(scope="module")
def report(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> AuditReport:
    """Of a classification."""
    return report_of(repository, tmp_path_factory.mktemp("report"), CLASSES)


class Outline(HTMLParser):
    """Checks that elements are closed in their order, and collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elsewhere: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.append(value)
            if name in {"src", "href", "xlink:href"} and value and not value.startswith("#"):
                self.elsewhere.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """It is closed at once."""
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """It must be the last one that is open."""
        if tag not in VOID:
            assert tag == self.open.pop()

    def handle_data(self, data: str) -> None:
        """What people read."""
        if not {"style"} & set(self.open):
            self.text += f" {data} "


def outline(page: str) -> Outline:
    """A page, gone through."""
    found = Outline()
    found.feed(page)
    found.close()
    return found


def plain(page: str) -> str:
    """The words of a page, with single blanks."""
    return " ".join(outline(page).text.split())


@pytest.mark.parametrize("model", MODELS.values())
def test_it_needs_nothing_else(repository: Path, tmp_path: Path, model: str) -> None:
    """No script, no address, no other file; well-formed, no name twice, and small."""
    page = audit_page(report_of(repository, tmp_path, model))
    found = outline(page)
    assert [] == found.open
    assert [] == found.elsewhere
    assert {"script", "iframe", "img", "link"}.isdisjoint(found.tags)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", page)
    assert len(found.ids) == len(set(found.ids))
    assert set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", page)) <= set(found.ids)
    assert 3 == page.count("<svg ")
    assert len(page) < 120_000


def test_the_verdict_comes_first(report: AuditReport) -> None:
    """With its reasons, in the report's words."""
    page = plain(audit_page(report))
    assert Outcome.CONSISTENT is report.verdict
    places = [page.index(text) for text in ("Consistent with the calibration set", *report.reasons)]
    assert places == sorted(places)
    assert places[-1] < page.index("How steep the model is")


def test_every_figure_is_there(report: AuditReport) -> None:
    """Rows, quantiles of both sides, shares, distance, worst rows with their features, accuracy, provenance."""
    page = plain(audit_page(report))
    assert report.gradient_norm is not None
    assert report.shift is not None
    assert report.shift.distribution is not None
    assert report.labels is not None
    assert report.labels.accuracy is not None
    for figures in (report.gradient_norm, report.calibration):
        for value in (figures.mean, figures.p50, figures.p90, figures.p95, figures.p99, figures.maximum):
            assert f"{value:.4g}" in page
    for verdict, share in report.verdicts.items():
        assert f"{verdict} {share.rows:,}" in page
    assert f"{report.shift.distribution.statistic:.4g}" in page
    for row in report.worst:
        assert f"{row.row:,} {row.gradient_norm:.4g}" in page
        assert row.features[0].feature in page
    assert f"{100 * report.labels.accuracy:.3g} %" in page
    for text in (report.model.digest, report.source.sha256, report.execution.runtime, "classes & co.csv"):
        assert text in page


def test_it_says_what_it_does_not_show(report: AuditReport) -> None:
    """A point gradient is local; no certificate; a shift or none is no proof."""
    page = plain(audit_page(report))
    limits = page[page.index("What this does not show") : page.index("Where this comes from")]
    for text in ("A gradient holds at its row", "no certificate", "is not a proof", "independent of each other"):
        assert text in limits


def test_no_value_of_a_row_is_on_it(repository: Path, tmp_path: Path) -> None:
    """Neither in the text nor in the drawings: a page may go to people who must not see the data."""
    truth = Truth(repository / CLASSES / "1")
    page = audit_page(report_of(repository, tmp_path, CLASSES))
    values = truth.rows(ROWS, seed=5, spread=0.9).ravel()
    assert [] == [value for value in values.tolist() if repr(value)[:9] in page]


def test_names_are_escaped(report: AuditReport) -> None:
    """What a file or a feature is called is text, whatever is in it."""
    evil = "<script>alert(1)</script>"
    source = report.source.model_copy(update={"name": evil, "ignored": [evil]})
    worst = [
        row.model_copy(update={"label": evil, "features": [row.features[0].model_copy(update={"feature": evil})]})
        for row in report.worst
    ]
    page = audit_page(report.model_copy(update={"source": source, "worst": worst, "reasons": [evil]}))
    assert "<script" not in page
    assert evil in plain(page)


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"spread": 3.0}, "Shifted against the calibration set"),
        ({"rows": 12}, "Too few rows to say"),
        ({"rows": 40, "labels": False}, ""),
    ],
)
def test_other_outcomes(repository: Path, tmp_path: Path, changes: dict[str, Any], headline: str) -> None:
    """Shifted, too few rows for a test, without labels."""
    page = plain(audit_page(report_of(repository, tmp_path, AMOUNT, **changes)))
    assert headline in page
    assert ("There are too few rows for a test" in page) == (changes.get("rows") == 12)
    assert ("Are the errors larger on the steep rows?" in page) == changes.get("labels", True)


def test_a_regression_is_told_of_by_its_errors(repository: Path, tmp_path: Path) -> None:
    """A value is neither right nor wrong: the page and the console speak of errors, and nowhere of accuracy."""
    report = report_of(repository, tmp_path, AMOUNT)
    assert report.labels is not None
    page, console = plain(audit_page(report)), summary(report)
    assert "A row with a large error is steeper than another with probability" in page
    assert f"Large: {report.labels.wrong};" in page
    error = f"root mean squared error {report.labels.root_mean_squared_error:.4g}; a row with a large error "
    assert f"{error}({report.labels.wrong}) is steeper than another with probability" in console
    unlabelled = report_of(repository, tmp_path, AMOUNT, labels=False)
    assert "no labels were given, so nothing is said of how large the errors are here" in plain(audit_page(unlabelled))
    for text in (page, console, plain(audit_page(unlabelled))):
        assert not re.search("accuracy|wrong (row|ones)|right one", text)


def test_a_classification_is_told_of_by_what_is_wrong(report: AuditReport) -> None:
    """Rows are right or wrong there."""
    page, console = plain(audit_page(report)), summary(report)
    assert "Are the steep rows the wrong ones?" in page
    assert "A wrong row is steeper than a right one with probability" in page
    assert "a wrong row is steeper than a right one with probability" in console


def test_rows_that_overflow_are_told(repository: Path, tmp_path: Path) -> None:
    """All of them: no distribution, no plot but no error either."""
    report = report_of(repository, tmp_path, WILD, times=np.float32(1e18), labels=False)
    assert report.failed == ROWS
    page = audit_page(report)
    assert "No row could be computed" in plain(page)
    assert "<svg" not in page
    assert [] == outline(page).open


def test_colours_are_those_of_the_page(report: AuditReport) -> None:
    """Every drawing takes them from the style sheet, which has them for light, dark and paper."""
    page = audit_page(report)
    style = page[page.index("<style>") : page.index("</style>")]
    drawings = "".join(re.findall(r"<svg .*?</svg>", page, re.DOTALL))
    used = set(re.findall(r"var\((--[a-z]+)\)", drawings))
    assert {"--ink", "--faint", "--audited", "--expected", "--critical"} <= used
    assert not re.search(r"#01020", page)
    for name in used:
        assert 3 == len(re.findall(rf"{name}: #", style))
    assert {"font-family"}.isdisjoint(drawings)
