"""What a training run shows: a bar with the time left on a terminal, a line every tenth of the run elsewhere."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as Grid

from model.manifest import Comparison, Distribution, Evaluation, Manifest
from training.config import RIVALS, FitConfig
from training.fit import Epoch

LINES_PER_RUN = 10
ROWS_FOR_P99 = 500  # with fewer, more than 1.2 % of new rows lie above p99 (docs/mathematics.md, Verdicts)


class TrainingProgress:
    """Shows each network's epochs; a context manager."""

    def __init__(self, console: Console) -> None:
        """Show on `console`."""
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description:<11}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def epoch(self, network: str, epoch: Epoch) -> None:
        """Show that an epoch of a network has ended."""
        figures = f"loss {epoch.loss:.4f}"
        if epoch.penalty:
            figures += f"  DREG {epoch.penalty:.3f} × λ {epoch.weight:.3g}"
        if not self._console.is_terminal:
            if epoch.number * LINES_PER_RUN // epoch.of > (epoch.number - 1) * LINES_PER_RUN // epoch.of:
                self._console.print(f"{network} epoch {epoch.number}/{epoch.of}  {figures}")
            return
        if network not in self._tasks:
            self._tasks[network] = self._bar.add_task(network, total=epoch.of, figures=figures)
        self._bar.update(self._tasks[network], completed=epoch.number, figures=figures)


def summary(manifest: Manifest) -> Grid:
    """The test figures of a model, beside the baseline's."""
    grid = Grid(title=f"{manifest.name} version {manifest.version}, {manifest.evaluation.gradient_norm.rows} test rows")
    grid.add_column("")
    grid.add_column("ChainzRule", justify="right")
    networks: list[Evaluation | Comparison] = [manifest.evaluation, *manifest.comparisons]
    for comparison in manifest.comparisons:
        grid.add_column(comparison.name, justify="right")
    for metric in manifest.evaluation.metrics:
        shown = (f"{network.metrics[metric]:.4f}" if metric in network.metrics else "–" for network in networks)
        grid.add_row(metric.replace("_", " "), *shown)
    for label, figures in _norm_figures(networks).items():
        grid.add_row(f"gradient norm, {label}", *figures)
    counts = [network.parameters for network in networks]
    grid.add_row("parameters", *("–" if count is None else f"{count:,}" for count in counts))
    return grid


def _norm_figures(networks: Sequence[Evaluation | Comparison]) -> dict[str, list[str]]:
    norms = [network.gradient_norm for network in networks]

    def shown(figure: Callable[[Distribution], float | None]) -> list[str]:
        figures = [None if norm is None else figure(norm) for norm in norms]
        return ["–" if value is None else f"{value:.3f}" for value in figures]

    return {
        "mean": shown(lambda norm: norm.mean),
        "p99": shown(lambda norm: norm.p99),
        "maximum": shown(lambda norm: norm.maximum),
        "tail ratio p99 / mean": shown(lambda norm: norm.tail_ratio),
    }


def notes(config: FitConfig, manifest: Manifest) -> list[str]:
    """What a reader of the figures should know."""
    found = []
    compared = {comparison.name for comparison in manifest.comparisons}
    found += [
        f"the {RIVALS[rival]} to compare with diverged, so there are no figures of it"
        for rival in config.compare
        if RIVALS[rival] not in compared
    ]
    if manifest.evaluation.metrics.get("r2", 1.0) <= 0:
        found.append(
            "R² is not above 0: the mean of the target predicts these test rows as well; try another --dreg-weight"
        )
    rows = manifest.calibration.gradient_norm.rows
    if rows < ROWS_FOR_P99:
        found.append(
            f"{rows} calibration rows: the 99th percentile is rough, and more than 1 % of new rows will be critical"
        )
    return found
