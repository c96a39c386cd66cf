"""The page as a whole: well formed, self-contained, the same again, and true to the manifest."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model.manifest import Comparison, Distribution, Evaluation, TunedNetwork, Tuning
from model.outputs import Task
from tests.training.mixed import make_mixed_table
from tests.training.reports import Made, make_run, make_stress
from tests.training.tables import make_config, make_table
from training.data.table import Column
from training.epoch import Epoch
from training.metrics import ECE_BINS
from training.report.charts.calibration import limit_confidence
from training.report.page import render
from training.report.words import interval, metric, number, percent

VOID = {"br", "meta", "img", "link", "hr", "input"}
SIZE_AT_MOST = 1_500_000


class Page(HTMLParser):
    """A page as a reader sees it: its text without style and drawings, its tables, its headings, its problems."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.open: list[str] = []
        self.problems: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._words: list[str] = []
        self.feed(source)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self.open]
        self.text = re.sub(r"\s+", " ", "".join(self._words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element, which must be this."""
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        """Text, unless it is of the style or of a drawing."""
        if {"style", "svg"} & set(self.open):
            return
        self._words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def row(self, *starts: str) -> list[str]:
        """The cells of the only table row whose first cells are these."""
        found = [row for table in self.tables for row in table if tuple(row[: len(starts)]) == starts]
        assert 1 == len(found), (starts, found)
        return found[0]


CLASSES = make_config(compare=("relu", "gelu"), validation_share=0.1, epochs=3)


@pytest.fixture(scope="module")
def runs() -> dict[Task, Made]:
    """One run a task, with everything that a report can show."""
    tables = {
        Task.CLASSIFICATION: make_mixed_table(rows=300),
        Task.ORDINAL: make_table(Task.ORDINAL, rows=300, classes=4),
        Task.REGRESSION: make_table(Task.REGRESSION, rows=300),
    }
    return {task: make_run(table, CLASSES, stress=True) for task, table in tables.items()}


@pytest.fixture(scope="module")
def pages(runs: dict[Task, Made]) -> dict[Task, Page]:
    """Their pages."""
    return {task: Page(render(made.manifest, made.material)) for task, made in runs.items()}


each_task = pytest.mark.parametrize("task", list(Task))


def page_of(made: Made) -> Page:
    """Render and read."""
    return Page(render(made.manifest, made.material))


@each_task
def test_page_is_well_formed(pages: dict[Task, Page], task: Task) -> None:
    """Every element is closed where it was opened, no name is given twice, and every link leads to a section."""
    page = pages[task]
    assert [] == page.problems
    assert len(set(page.ids)) == len(page.ids)
    links = {value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert len(links) == 11
    assert links <= set(page.ids)


@each_task
def test_page_needs_nothing_else(pages: dict[Task, Page], task: Task) -> None:
    """No script, and nothing that a browser would fetch: all addresses are within the page or are its own data."""
    page = pages[task]
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page.source.split("</style>", 1)[1])
    assert "url(" not in page.source.split("</style>", 1)[0]
    assert "<script" not in page.source.lower()
    fetched = [value for _, name, value in page.attributes if name in {"src", "href", "xlink:href", "data", "srcset"}]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in fetched)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert len(page.source.encode()) < SIZE_AT_MOST


@each_task
def test_same_run_gives_the_same_page(runs: dict[Task, Made], pages: dict[Task, Page], task: Task) -> None:
    """Byte for byte, so that the digest of a bundle's report can be had again."""
    assert pages[task].source == render(runs[task].manifest, runs[task].material)


@each_task
def test_drawings_within_a_page_do_not_share_names(pages: dict[Task, Page], task: Task) -> None:
    """What one drawing refers to is defined once, and in that drawing."""
    drawings = re.findall(r"<svg.*?</svg>", pages[task].source, re.DOTALL)
    labels = [re.search(r'aria-label="(.*?)"', drawing) for drawing in drawings]
    assert len({label[1] for label in labels if label}) == len(drawings) >= 7
    for drawing in drawings:
        defined = re.findall(r' id="(.*?)"', drawing)
        used = re.findall(r'(?:href="#|url\(#)(.*?)["\)]', drawing)
        assert set(used) <= set(defined)
        assert not re.search(r"#0102[0-9a-f]{2}", drawing)


def figures(one: Distribution) -> list[str]:
    """A distribution as a row of the table has it."""
    values = (one.mean, one.p50, one.p95, one.p99, one.maximum, one.tail_ratio)
    return [f"{one.rows:,}", *map(number, values)]


@each_task
def test_gradient_norms_are_those_of_the_manifest(runs: dict[Task, Made], pages: dict[Task, Page], task: Task) -> None:
    """Every figure of every distribution, of this network and of the others."""
    manifest = runs[task].manifest
    assert figures(manifest.evaluation.gradient_norm) == pages[task].row("ChainzRule, test rows")[1:]
    assert figures(manifest.calibration.gradient_norm) == pages[task].row("ChainzRule, calibration rows")[1:]
    for one in manifest.comparisons:
        assert one.gradient_norm is not None
        assert figures(one.gradient_norm) == pages[task].row(f"{one.name}, test rows")[1:]


@each_task
def test_metrics_are_those_of_the_manifest(runs: dict[Task, Made], pages: dict[Task, Page], task: Task) -> None:
    """Every metric of every model, with its interval where it has one, and the parameters."""
    manifest = runs[task].manifest
    models: list[tuple[str, Evaluation | Comparison]] = [
        ("ChainzRule", manifest.evaluation),
        *((one.name, one) for one in manifest.comparisons),
    ]
    for name, one in models:
        cells = pages[task].row(name)
        expected = [
            metric(value, key) + (interval(one.intervals[key], key) if key in one.intervals else "")
            for key, value in one.metrics.items()
        ]
        assert expected == cells[1 : 1 + len(expected)]
        assert f"{one.parameters:,}" == cells[-2]


@each_task
def test_stress_is_that_of_the_manifest(runs: dict[Task, Made], pages: dict[Task, Page], task: Task) -> None:
    """Every distance with its figures."""
    for one in runs[task].manifest.stress:
        norm = one.gradient_norm
        assert norm is not None
        expected = [f"{one.rows:,}", "yes", number(norm.mean), number(norm.p99), number(norm.maximum)]
        cells = pages[task].row(f"{one.distance:g}", f"{one.rows:,}")
        assert [*expected, number(one.score_change), percent(one.out_of_range)] == cells[1:]


@each_task
def test_provenance_is_that_of_the_manifest(runs: dict[Task, Made], pages: dict[Task, Page], task: Task) -> None:
    """Data set, digest, revision, packages, and how many rows went where."""
    made, text = runs[task].manifest.provenance, pages[task].text
    for part in (
        made.dataset_sha256,
        "0123456789abcdef",
        f"torch {made.packages['torch']}",
        f"{made.rows.training:,} rows to train",
        f"{made.rows.calibration:,} to calibrate, {made.rows.test:,} to test; seed 0",
        "2026-01-02 03:04 UTC",
    ):
        assert part in text


def test_provenance_tells_how_the_weight_was_chosen_and_reached(runs: dict[Task, Made]) -> None:
    """Where it was: the rule, the figures of the chosen network and of that without a penalty, where λ was held."""
    made = runs[Task.CLASSIFICATION]
    assert "choice of λ" not in page_of(made).text
    assert "held at" not in page_of(made).text
    chosen, plain = (
        TunedNetwork(
            weight=weight, hidden=(8,), learning_rate=2e-3, loss=loss, standard_error=0.01, metric=0.9,
            gradient_norm_p99=p99,
        )
        for weight, loss, p99 in ((0.3, 0.125, 1.75), (0.0, 0.1875, 5.5))
    )  # fmt: skip
    tuning = Tuning(
        rule="smoothest of the good ones", trials=12, failed=1, validation_rows=1234, loss="negative log-likelihood",
        metric="accuracy", loss_at_most=0.135, chosen=chosen, without_penalty=plain,
    )  # fmt: skip
    provenance = made.manifest.provenance
    held = provenance.dreg.model_copy(update={"end_weight": 0.3, "reached_weight": 0.0625})
    changed = {"tuning": tuning, "dreg": held, "settings": {"dreg_target": 2.0}}
    provenance = provenance.model_copy(update=changed)
    text = page_of(replace(made, manifest=made.manifest.model_copy(update={"provenance": provenance}))).text
    assert (
        "of 12 trials the smoothest of the good ones: on 1,234 validation rows negative log-likelihood 0.125, p99 "
        "1.75; with λ = 0 0.1875 and 5.5"
    ) in text
    assert "; held at 0.0625 by its target" in text


def test_another_manifest_gives_other_figures(runs: dict[Task, Made]) -> None:
    """The page follows the manifest, not what the material would give again."""
    made = runs[Task.REGRESSION]
    norm = made.manifest.evaluation.gradient_norm.model_copy(update={"p99": 123.4, "maximum": 432.1})
    evaluation = made.manifest.evaluation.model_copy(
        update={"gradient_norm": norm, "metrics": {"root_mean_squared_error": 77.5}, "intervals": {}}
    )
    page = page_of(replace(made, manifest=made.manifest.model_copy(update={"evaluation": evaluation})))
    assert figures(norm) == page.row("ChainzRule, test rows")[1:]
    assert "77.5" == page.row("ChainzRule")[1]


HOSTILE = (
    '<script>alert("1")</script>',
    "\"'><img src=x onerror=alert(1)>",
    "$\\frac{1}$ & {{ 7 * 7 }} %s",
    "模型 – naïve \u202e ]]>",
)


def test_hostile_names_are_text() -> None:
    """Names of data, columns, categories, classes, units and models appear as they are, and as nothing else."""
    table = make_mixed_table()
    columns = (
        Column(HOSTILE[0], unit=HOSTILE[1]),
        Column(HOSTILE[1], missing=True, unit=HOSTILE[2]),
        Column(HOSTILE[2]),
        Column(HOSTILE[3], categories=HOSTILE[:3]),
        Column("{% raw %}", categories=HOSTILE[1:3], other=True, missing=True),
    )
    table = replace(table, name=HOSTILE[3], columns=columns, target=HOSTILE[0], classes=HOSTILE[1:])
    made = make_run(table, make_config(name="fine", compare=("relu",)))
    renamed = tuple(made.manifest.comparisons[0].model_copy(update={"name": name}) for name in HOSTILE)
    manifest = made.manifest.model_copy(update={"comparisons": renamed})
    material = replace(made.material, rivals=dict.fromkeys(HOSTILE, made.material.rivals["ReLU network"]))
    page = Page(render(manifest, material))
    assert [] == page.problems
    assert {"script", "img"}.isdisjoint(tag for tag, _, _ in page.attributes)
    assert "<script" not in page.source
    drawing = page.source[page.source.index('aria-label="Cumulative') :]
    assert "$\\frac{1}$ &amp; {{ 7 * 7 }} %s</text>" in drawing[: drawing.index("</svg>")]
    for name in HOSTILE:
        assert re.sub(r"\s+", " ", name) in page.text


def test_nothing_to_compare_with(runs: dict[Task, Made]) -> None:
    """The page says so, and leaves the other networks' curves out."""
    made = runs[Task.ORDINAL]
    alone = make_run(made.material.table, make_config())
    page = page_of(alone)
    assert [] == page.problems
    assert "It was compared with no other model." in page.text
    assert "Cumulative distributions" not in page.source
    assert "No rows were pushed beyond the training range" in page.text


def test_one_epoch_and_no_bound_and_a_straight_line() -> None:
    """Networks of degree 1 have no polynomial to draw; without a bound none is told of; one epoch is a point."""
    page = page_of(make_run(make_table(), make_config(epochs=1, degree=1, bound=None, hidden=(4,))))
    assert [] == page.problems
    assert "The polynomials are of degree 1" in page.text
    assert "Learned polynomials" not in page.source
    assert "There was one epoch only" in page.text
    assert "no bound" in page.text


def test_epochs_may_be_unknown(runs: dict[Task, Made]) -> None:
    """Without any, the section says so."""
    made = runs[Task.REGRESSION]
    page = page_of(replace(made, material=replace(made.material, epochs={})))
    assert "No figures of the epochs were kept." in page.text


def test_outputs_that_are_not_finite_are_told_of(runs: dict[Task, Made]) -> None:
    """An overflow beyond the range is a warning, and its figures are dashes."""
    made = runs[Task.ORDINAL]
    stress = make_stress(made.material.test, finite=False)
    page = page_of(replace(made, manifest=made.manifest.model_copy(update={"stress": stress})))
    assert ["10", "60", "no", "–", "–", "–", "–", percent(1.0)] == page.row("10", "60")
    assert "Some outputs were not finite." in page.text


@pytest.mark.parametrize(("rows", "warned"), [(300, True), (3000, False)])
def test_few_calibration_rows_are_told_of(rows: int, *, warned: bool) -> None:
    """Below 500 the critical threshold is rough; an interval without an upper end says why."""
    page = page_of(make_run(make_table(rows=rows), make_config(epochs=1)))
    assert warned == ("Few rows." in page.text)
    assert warned == ("no upper end: too few rows" in page.row("critical")[2])


def test_images_are_shown(runs: dict[Task, Made]) -> None:
    """Rows of pixels of one unit are drawn, each with its gradient, and the mean gradient as a map."""
    table = make_table(features=9)
    pixels = tuple(Column(f"pixel_{row}_{column}") for row in range(3) for column in range(3))
    table = replace(table, columns=pixels, common_unit="grey", common_range=(-40.0, 60.0))
    page = page_of(make_run(table))
    assert [] == page.problems
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert 2 * 10 + 1 == len(pictures)
    assert all(value.startswith("data:image/png;base64,iVBORw0KGgo") for value in pictures)
    other = replace(table, columns=(Column("pixel_9_9"), *pixels[1:]))
    assert "<img" not in page_of(make_run(other)).source


def test_long_training_is_thinned(runs: dict[Task, Made]) -> None:
    """Thousands of epochs do not make the page grow without end."""
    made = runs[Task.REGRESSION]
    many = [Epoch(k, 5000, 1 / k, 2.0, 0.1, (1.0, 2.0), 1.5 / k, 3.0) for k in range(1, 5001)]
    names = ("ChainzRule", "ReLU network", "GELU network")
    source = render(made.manifest, replace(made.material, epochs=dict.fromkeys(names, many)))
    assert len(source.encode()) < SIZE_AT_MOST / 2


def test_early_stop_and_held_weight_are_told_of(runs: dict[Task, Made]) -> None:
    """What the epochs say of stopping, of the epoch that was kept, and of λ."""
    made = runs[Task.REGRESSION]
    epochs = [Epoch(k, 50, 1 / k, 2.0, 0.625, (1.0,), 1.5 / k, 3.0) for k in range(1, 8)]
    epochs.append(replace(epochs[-1], number=8, stopped=True, best=6, held_since=4))
    text = page_of(replace(made, material=replace(made.material, epochs={"ChainzRule": epochs}))).text
    assert "stopped early, after epoch 8 of 50" in text
    assert "least after epoch 6" in text
    end = made.manifest.provenance.dreg.end_weight
    assert f"λ stopped rising after epoch 4, at 0.625 of {end:g}:" in text


def test_rows_at_both_ends(runs: dict[Task, Made], pages: dict[Task, Page]) -> None:
    """The five greatest and the five least norms, by the row's number in the table, with values as they are."""
    made, page = runs[Task.CLASSIFICATION], pages[Task.CLASSIFICATION]
    norms, test = made.material.test.gradient_norm, made.material.parts.test
    order = np.argsort(norms, kind="stable")
    for k in (*order[-5:], *order[:5]):
        x = made.material.table.x[test[k]]
        cells = page.row(f"{test[k]:,}", number(float(norms[k])))
        income = "missing" if np.isnan(x[1]) else f"{number(float(x[1]))} ("
        assert f"age {number(float(x[0]))} years (" in cells[6]
        assert f"income {income}" in cells[6]
        assert f"colour {('red', 'green', 'blue')[int(x[3])]} ·" in cells[6]
        assert cells[6].endswith("town missing" if np.isnan(x[4]) else f"town {('A', 'B', '(other)')[int(x[4])]}")
        assert made.manifest.target.classes[made.material.table.y[test[k]]] == cells[4]


def test_imputed_values_and_categories(runs: dict[Task, Made], pages: dict[Task, Page]) -> None:
    """What stands for a missing number, and which categories are taken together."""
    feature, page = runs[Task.CLASSIFICATION].manifest.features[1], pages[Task.CLASSIFICATION]
    ends = f"{number(feature.minimum)} to {number(feature.maximum)}"
    put = number(feature.imputed)
    assert ["income", put, number(feature.mean), ends, ""] == page.row("income", put)
    assert ["red · green · blue", "refused", "no"] == page.row("colour", "red · green · blue")[1:]
    assert ["A · B", "taken together as “other”", "yes"] == page.row("town", "A · B")[1:]


def test_groups_are_told_of(runs: dict[Task, Made]) -> None:
    """By which column rows were grouped, how many groups there are, and that the intervals do not know of them."""
    made = runs[Task.ORDINAL]
    numbers = np.arange(300) // 3
    table = replace(made.material.table, groups=numbers)
    config = make_config(group="patient")
    page = page_of(replace(made, material=replace(made.material, table=table, config=config)))
    tested = len(set(numbers[made.material.parts.test].tolist()))
    assert [] == page.problems
    assert f"100 groups of rows, by “patient”: each lies in one part of the split, {tested} of them in the test" in (
        page.text
    )
    assert f"Rows are grouped by “patient”: the 60 test rows are of {tested} groups that no other part" in page.text
    unnamed = page_of(replace(made, material=replace(made.material, table=table)))
    assert f"Rows are grouped: the 60 test rows are of {tested} groups" in unnamed.text
    assert "Rows are grouped" not in page_of(made).text


def test_flips_are_told_of_where_there_are_categories(pages: dict[Task, Page]) -> None:
    """A table of numbers alone has no sentence on categories where features and rows are shown."""
    told = "a flipped category may give a row that cannot exist"
    assert (True, False) == (told in pages[Task.CLASSIFICATION].text, told in pages[Task.REGRESSION].text)
    numbers = page_of(make_run(make_table(features=20), make_config(epochs=1)))
    assert "The six numeric features with the steepest gradients are shown, each number" in numbers.text


@pytest.mark.parametrize(("classes", "share", "first"), [(2, "50 %", 7), (3, "33.3 %", 5), (4, "25 %", 3)])
def test_confidence_axis_begins_where_confidence_does(classes: int, share: str, first: int) -> None:
    """The likeliest of K classes has a probability of 1/K at least: the caption says so, and the axis shows no more."""
    made = make_run(make_table(classes=classes), make_config(epochs=1))
    page = page_of(made)
    sentence = f"Of {classes} classes the likeliest has a probability of {share} at least"
    assert sentence in page.text
    edges = np.linspace(0, 1, ECE_BINS + 1)
    axes = Axes(Figure(), (0, 0, 1, 1))
    limit_confidence(axes, edges, 1 / classes)
    assert (edges[first], 1.0) == axes.get_xlim()
    assert edges[first] <= 1 / classes < edges[first + 1]
