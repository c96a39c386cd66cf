"""Does an audit tell rows of another kind? A network for MNIST, audited on fresh, on other and on corrupted images.

    CHAINZRULE_DATA=<folder with mnist/ and fashion-mnist/> python benchmarks/drift.py [--bundle …] [--draws 1000]

Without `--bundle` it trains one first, as `chainzrule-train fit mnist --hidden 256,128 --compare none --no-report`
does. Thresholds are those of a service in the same environment: with `CHAINZRULE_DRIFT_DISTANCE=0.05` lesser shifts
matter.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from corruptions import corruptions
from measure import machine
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import stats

from model import bundle
from model.manifest import Manifest
from model.outputs import Plan
from service.audit.auditor import CHUNK_ROWS, Options, audit
from service.audit.local import Local, open_bundle
from service.audit.outcome import outcome
from service.audit.readers.data import Data
from service.audit.schemas import AuditReport, Outcome, Shift
from service.audit.shift import Reference, compare
from service.sensitivity import VERDICTS, Judge, verdicts
from service.settings import Settings
from training.calibrate import calibrate
from training.config import FitConfig
from training.data.load import load
from training.data.table import Split, Table, split
from training.evaluate import Answers
from training.pipeline import train

SIZES = (100, 300, 1_000, 5_000)
LABEL = "label"
FRESH = "fresh MNIST"
SEED = 1
CRITICAL = len(VERDICTS) - 1


@dataclass(frozen=True)
class Figures:
    """What the tests need of each row, [rows]."""

    norm: NDArray[np.float32]
    hidden_out_of_range: NDArray[np.float32]
    critical: NDArray[np.bool_]

    @classmethod
    def of(cls, local: Local, x: NDArray[np.float32]) -> "Figures":
        """Compute them for rows [rows, features]."""
        batches = [
            local.model.compute(Plan.SENSITIVITY, x[start : start + CHUNK_ROWS])
            for start in range(0, len(x), CHUNK_ROWS)
        ]
        if any(batch.overflowed is not None for batch in batches):
            sys.exit("drift: expected a network that overflows on no row, got one that does: train it with a bound")
        return cls(
            np.concatenate([batch.outputs["gradient_norm"] for batch in batches]),
            np.concatenate([batch.outputs["hidden_out_of_range"] for batch in batches]),
            np.concatenate([batch.judgement.verdict == CRITICAL for batch in batches]),
        )


def tested(
    reference: Reference, norms: NDArray[np.float32], critical: NDArray[np.bool_], distance: float
) -> tuple[Outcome, Shift | None]:
    """What an audit of rows with these figures comes to, by the functions that an audit calls, and its two tests."""
    shift = compare(reference, reference.counts(norms), int(critical.sum()), distance)
    return outcome(len(norms), 0, shift)[0], shift


def audited(local: Local, x: NDArray[np.float32], labels: list[str] | None, options: Options) -> AuditReport:
    """An audit proper of rows [rows, features], by way of a Parquet file."""
    columns = {"pixels": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])}
    if labels is not None:
        columns[LABEL] = pa.array(labels)
    with tempfile.TemporaryDirectory(prefix="chainzrule-drift-") as folder:
        path = Path(folder) / "rows.parquet"
        parquet.write_table(pa.table(columns), path, use_dictionary=False, compression="none")
        return audit(local.model, local.execution, Data.of_file(path), options)


def told(local: Local, x: NDArray[np.float32], draws: int, distance: float) -> dict[int, list[Outcome]]:
    """The outcomes of samples of rows, by their size; ends the program where an audit proper says otherwise."""
    figures, random = Figures.of(local, x), np.random.default_rng(SEED)
    reference = Reference(local.model.manifest, local.model.judge.critical)
    found: dict[int, list[Outcome]] = {}
    for size in SIZES:
        places = random.integers(0, len(x), (draws, size))
        tests = [tested(reference, figures.norm[rows], figures.critical[rows], distance) for rows in places]
        report = audited(local, x[places[0]], None, Options(drift_distance=distance, worst=0))
        if (report.verdict, report.shift) != tests[0]:
            sys.exit(f"drift: expected an audit to find {tests[0]}, got {(report.verdict, report.shift)}")
        found[size] = [verdict for verdict, _ in tests]
    return found


def calibrated_anew(
    manifest: Manifest, judge: Judge, figures: Figures, calibration: int, draws: int, distance: float
) -> dict[int, list[Outcome]]:
    """The outcomes where the calibration rows are drawn anew each time, and the audited ones from the rest."""
    random = np.random.default_rng(SEED)
    found: dict[int, list[Outcome]] = {size: [] for size in SIZES}
    zeros = np.zeros(calibration)
    for _ in range(draws):
        order = random.permutation(len(figures.norm))
        kept, rest = order[:calibration], order[calibration:]
        hidden = figures.hidden_out_of_range[kept]
        # Grey levels cannot leave 0 to 255, so that no feature of any row is out of range.
        answers = Answers({}, figures.norm[kept], zeros.astype(np.float32), hidden)
        drawn = manifest.model_copy(update={"calibration": calibrate(answers, zeros)})
        own = Judge(drawn, judge.elevated_percentile, judge.critical_percentile)
        reference = Reference(drawn, own.critical)
        for size in SIZES:
            norms, share = figures.norm[rest[:size]], figures.hidden_out_of_range[rest[:size]]
            critical = verdicts(norms, share > hidden.max(), own.elevated, own.critical) == CRITICAL
            found[size].append(tested(reference, norms, critical, distance)[0])
    return found


def shares(found: dict[int, list[Outcome]]) -> list[str]:
    """Of each size the share of samples called shifted and, in brackets, of those too small to say."""
    cells = []
    for outcomes in found.values():
        shifted, unsure = (
            outcomes.count(verdict) / len(outcomes) for verdict in (Outcome.SHIFTED, Outcome.INSUFFICIENT)
        )
        cells.append(f"{shifted:.1%}" + (f" ({unsure:.1%})" if unsure else ""))
    return cells


def intervals(found: dict[int, list[Outcome]]) -> list[str]:
    """Of each size the share of samples called shifted, with its 95 % interval (Clopper and Pearson 1934)."""
    cells = []
    for outcomes in found.values():
        alarms = outcomes.count(Outcome.SHIFTED)
        interval = stats.binomtest(alarms, len(outcomes)).proportion_ci(0.95, "exact")
        cells.append(f"{alarms / len(outcomes):.2%} ({interval.low:.2%}–{interval.high:.2%})")
    return cells


def line(*cells: str) -> None:
    """A row of a table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def heading(*cells: str) -> None:
    """The head of a table whose last columns are the sizes."""
    sizes = [f"{size:,} rows" for size in SIZES]
    line(*cells, *sizes)
    line(*("---" for _ in (*cells, *sizes)))


def data_sets(table: Table, rows: Split) -> dict[str, tuple[NDArray[np.float32], list[str] | None]]:
    """Rows and, where they are digits, labels."""
    fresh = table.x[rows.test]
    labels = [table.classes[place] for place in table.y[rows.test].tolist()]
    side = round(fresh.shape[1] ** 0.5)
    images = fresh.reshape(-1, side, side)
    fashion = load(FitConfig(dataset="fashion-mnist"))
    sets: dict[str, tuple[NDArray[np.float32], list[str] | None]] = {FRESH: (fresh, labels)}
    sets["Fashion-MNIST"] = (fashion.x[-fashion.test_rows :], None)
    for name, corrupt in corruptions(SEED).items():
        sets[name] = (corrupt(images).reshape(fresh.shape), labels)
    return sets


def main() -> None:
    """Train if need be, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="of a network for MNIST; one is trained without it")
    parser.add_argument("--epochs", type=int, help="of the training; by default the command's own")
    parser.add_argument("--draws", type=int, default=1_000, help="samples of each size")
    arguments = parser.parse_args()
    config = FitConfig(dataset="mnist", hidden=(256, 128), epochs=arguments.epochs, compare=(), report=False)
    table, settings = load(config), Settings(device="cpu", threads=1)
    with tempfile.TemporaryDirectory(prefix="chainzrule-drift-") as folder:
        path = arguments.bundle or train(config.model_copy(update={"repository": Path(folder)}), table).path
        local = open_bundle(path, settings)
        manifest = bundle.read(path.absolute()).manifest
    trained = manifest.provenance
    if trained.dataset_sha256 != table.sha256():
        sys.exit(f"drift: expected a bundle that was trained on MNIST, got one that was on {trained.dataset}")
    rows = split(table, test_share=config.test_share, calibration_share=config.calibration_share, seed=trained.seed)
    print(f"{datetime.now(UTC):%Y-%m-%d}  {machine()}")
    print(f"{manifest.architecture.hidden}, {trained.epochs} epochs, calibrated on {len(rows.calibration):,} rows;")
    print(f"{arguments.draws:,} samples of each size, a distance of {settings.drift_distance:g} matters;")
    print("of each size: shifted (too few rows to say)\n")
    heading("data", "accuracy", "KS distance", "critical", "out of range")
    fresh: dict[int, list[Outcome]] = {}
    for name, (x, labels) in data_sets(table, rows).items():
        report = audited(local, x, labels, Options(LABEL if labels else None, drift_distance=settings.drift_distance))
        found = told(local, x, arguments.draws, settings.drift_distance)
        fresh = fresh or found
        shift, right = report.shift, report.labels
        if shift is None or shift.distribution is None:
            sys.exit(f"drift: {name}: expected enough rows for a test, got {report.rows}")
        accuracy = f"{right.accuracy:.1%}" if right is not None and right.accuracy is not None else "–"
        figures = (
            f"{shift.distribution.statistic:.3f}",
            f"{shift.critical.share:.1%}",
            f"{report.out_of_range.share:.1%}",
        )
        line(name, accuracy, *figures, *shares(found))
    unseen = Figures.of(local, table.x[np.concatenate([rows.calibration, rows.test])])
    anew = calibrated_anew(
        manifest, local.model.judge, unseen, len(rows.calibration), arguments.draws, settings.drift_distance
    )
    print()
    heading(f"false alarms on {FRESH}")
    line("calibration of the bundle", *intervals(fresh))
    line("calibration drawn anew", *intervals(anew))
    line(
        "the same: too few rows to say",
        *(f"{found.count(Outcome.INSUFFICIENT) / len(found):.1%}" for found in anew.values()),
    )


if __name__ == "__main__":
    main()
