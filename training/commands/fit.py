"""`chainzrule-train fit`."""

from rich.console import Console

from model.manifest import Tuning
from training.commands.naming import check_before_reading, note_on_versions
from training.config import FitConfig
from training.data.load import load
from training.data.table import Table
from training.pipeline import train
from training.progress import TrainingProgress, notes, summary


def run(config: FitConfig) -> None:
    """Load, train, write the bundle and say what came of it."""
    console = Console()
    check_before_reading(config)
    table = load(config)
    tell_of(table, console)
    tell_of_versions(config, table, console)
    train_and_tell(config, table, console)


def tell_of(table: Table, console: Console) -> None:
    """Say what a table holds, how each column was read, and what there is to note."""
    console.out(table.described(), highlight=False)
    for remark in table.remarks:
        console.out(f"Note: {remark}", highlight=False)


def tell_of_versions(config: FitConfig, table: Table, console: Console) -> None:
    """Say that the repository has another model of the same name, if it has."""
    note = note_on_versions(config, table)
    if note is not None:
        console.out(f"Note: {note}", highlight=False)


def train_and_tell(config: FitConfig, table: Table, console: Console, tuning: Tuning | None = None) -> None:
    """Train on a table that is loaded, by settings of which `tuning` says how λ was chosen, if it was."""
    if "boosting" in config.compare:
        console.out("Gradient boosting comes last; no progress is shown of it.", highlight=False)
    with TrainingProgress(console) as progress:
        result = train(config, table, progress.epoch, tuning)
    console.print(summary(result.manifest))
    for note in notes(result.manifest, result.failures):
        console.out(f"Note: {note}", highlight=False)
    console.out(
        f"Bundle written to {result.path}\nServe it with: chainzrule-serve --repository {config.repository}",
        highlight=False,
    )
