"""What a training run shows: a bar with the time left on a terminal, a line every tenth of the run elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as Grid

from model.manifest import Comparison, Distribution, Evaluation, Manifest
from training.config import RIVALS
from training.fitting import Epoch

LINES_PER_RUN = 10
SURE_OF_ITSELF = 2.0  # a temperature: of two classes, what was 95 % sure is 81 % sure then
STEEPER = 1.1  # times the p99 of another network: closer ones are alike
DISTANCE = "median_first_order_distance"
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
        if epoch.validation_loss is not None:
            figures += f"  validation loss {epoch.validation_loss:.4f}"
        if epoch.gradient_norm_p99 is not None:
            figures += f", norm p99 {epoch.gradient_norm_p99:.3g}"
        if epoch.resumed_after is not None:
            self._tell(f"{network}: {_start(epoch.resumed_after)}")
        if self._console.is_terminal:
            if network not in self._tasks:
                self._tasks[network] = self._bar.add_task(network, total=epoch.of, figures=figures)
            total = epoch.number if epoch.stopped else epoch.of
            self._bar.update(self._tasks[network], completed=epoch.number, total=total, figures=figures)
        elif epoch.number * LINES_PER_RUN // epoch.of > (epoch.number - 1) * LINES_PER_RUN // epoch.of or epoch.stopped:
            self._tell(f"{network} epoch {epoch.number}/{epoch.of}  {figures}")
        for remark in remarks(epoch):
            self._tell(f"{network}: {remark}")

    def _tell(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


def _start(epochs: int) -> str:
    if epochs:
        return f"goes on after epoch {epochs}, from its checkpoint"
    return "no checkpoint yet to resume from, so it starts with the first epoch"


def remarks(epoch: Epoch) -> list[str]:
    """What is to be said at the end of a training: where it stopped, which weights are kept, where λ was held."""
    if not (epoch.stopped or epoch.number == epoch.of):
        return []
    found = []
    if epoch.stopped:
        found.append(f"stopped after epoch {epoch.number} of {epoch.of}, best at {epoch.best}, whose weights are kept")
    elif epoch.best is not None:
        found.append(f"best at epoch {epoch.best} of {epoch.of}, whose weights are kept")
    if epoch.target is None or epoch.gradient_norm_p99 is None:
        return found
    if epoch.held_since is not None:
        found.append(
            f"λ held at {epoch.weight:.3g} since epoch {epoch.held_since}: the p99 of the gradient norm is at or below "
            f"--dreg-target {epoch.target:g}"
        )
    elif epoch.gradient_norm_p99 > epoch.target:
        found.append(
            f"the p99 of the gradient norm, {epoch.gradient_norm_p99:.3g} after the last epoch, is above --dreg-target "
            f"{epoch.target:g}: try a larger --dreg-weight, or more --epochs"
        )
    return found


def summary(manifest: Manifest) -> Grid:
    """The test figures of a model, beside the baseline's."""
    grid = Grid(title=f"{manifest.name} version {manifest.version}, {manifest.evaluation.gradient_norm.rows} test rows")
    grid.add_column("", no_wrap=True)
    grid.add_column("ChainzRule", justify="right", no_wrap=True)
    networks: list[Evaluation | Comparison] = [manifest.evaluation, *manifest.comparisons]
    for comparison in manifest.comparisons:
        grid.add_column(comparison.name, justify="right")
    for metric in manifest.evaluation.metrics:
        shown = (f"{network.metrics[metric]:.4f}" if metric in network.metrics else "–" for network in networks)
        grid.add_row(metric.replace("_", " "), *shown)
    for label, figures in _norm_figures(networks).items():
        grid.add_row(label, *figures)
    counts = [network.parameters for network in networks]
    grid.add_row("parameters", *("–" if count is None else f"{count:,}" for count in counts))
    grid.add_row("training, seconds", *(_seconds(manifest, network) for network in networks))
    return grid


def _seconds(manifest: Manifest, network: Evaluation | Comparison) -> str:
    seconds = network.training_seconds if isinstance(network, Comparison) else manifest.provenance.training_seconds
    return "–" if seconds is None else f"{seconds:.1f}"


def _norm_figures(networks: Sequence[Evaluation | Comparison]) -> dict[str, list[str]]:
    norms = [network.gradient_norm for network in networks]

    def shown(figure: Callable[[Distribution], float | None]) -> list[str]:
        figures = [None if norm is None else figure(norm) for norm in norms]
        return ["–" if value is None else f"{value:.3f}" for value in figures]

    return {
        "gradient norm, mean": shown(lambda norm: norm.mean),
        "gradient norm, p99": shown(lambda norm: norm.p99),
        "gradient norm, maximum": shown(lambda norm: norm.maximum),
        "tail ratio p99 / mean": shown(lambda norm: norm.tail_ratio),
    }


def _steeper(manifest: Manifest, comparison: Comparison) -> str | None:
    """What to say where the ReLU network is clearly the flatter one; None where it is not.

    A network that is less sure has smaller logits and with them smaller norms; the distance to the nearest other class
    does not change with the scale of the logits, so it is compared too where there is one.
    """
    own, its = manifest.evaluation, comparison.gradient_norm
    if comparison.name != RIVALS["relu"] or its is None or own.gradient_norm.p99 <= STEEPER * its.p99:
        return None
    text = (
        f"at the 99th percentile of these test rows this network is steeper than the {comparison.name} "
        f"({own.gradient_norm.p99:.3g} against {its.p99:.3g})"
    )
    here, there = (figures.get(DISTANCE) for figures in (own.metrics, comparison.metrics))
    if here is not None and there is not None and here > there:
        return (
            f"{text}; by the median first-order distance, an estimate that the scale of the logits does not change, "
            f"its rows lie farther from another class ({here:.3g} against {there:.3g})"
        )
    return (
        f"{text}; try a larger --dreg-weight than {manifest.provenance.dreg.end_weight:.3g}, or chainzrule-train tune"
    )


def notes(manifest: Manifest, failures: Mapping[str, str]) -> list[str]:
    """What a reader of the figures should know; `failures` says why there are no figures of what was to be compared."""
    found = [f"no figures of the {name}: {reason}" for name, reason in failures.items()]
    if manifest.evaluation.metrics.get("r2", 1.0) <= 0:
        found.append(
            "R² is not above 0: the mean of the target predicts these test rows as well; try another --dreg-weight"
        )
    found += filter(None, (_steeper(manifest, comparison) for comparison in manifest.comparisons))
    weight = manifest.provenance.dreg.end_weight
    temperature = manifest.calibration.temperature
    if temperature > SURE_OF_ITSELF:
        found.append(
            f"the logits were divided by {temperature:.3g}: on rows that it had not learned the network was far too "
            f"sure of itself; try a larger --dreg-weight than {weight:.3g}, or --validation-share 0.15 --patience 20"
        )
    rows = manifest.calibration.gradient_norm.rows
    if rows < ROWS_FOR_P99:
        found.append(
            f"{rows} calibration rows: the 99th percentile is rough, and more than 1 % of new rows will be critical"
        )
    return found
