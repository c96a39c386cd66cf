"""`chainzrule-train fit`."""

from rich.console import Console

from training.config import FitConfig
from training.data.load import load
from training.data.table import Table
from training.pipeline import train
from training.progress import TrainingProgress, notes, summary


def run(config: FitConfig) -> None:
    """Load, train, write the bundle and say what came of it."""
    console = Console()
    table = load(config)
    console.out(described(table), highlight=False)
    for remark in table.remarks:
        console.out(f"Note: {remark}", highlight=False)
    train_and_tell(config, table, console)


def described(table: Table) -> str:
    """A table in a line."""
    return f"{table.name}: {len(table.y):,} rows, {len(table.features)} features, {table.task} of {table.target!r}" + (
        f" into {len(table.classes)} classes" if table.classes else ""
    )


def train_and_tell(config: FitConfig, table: Table, console: Console) -> None:
    """Train on a table that is loaded."""
    with TrainingProgress(console) as progress:
        result = train(config, table, progress.epoch)
    console.print(summary(result.manifest))
    for note in notes(result.manifest, result.failures):
        console.out(f"Note: {note}", highlight=False)
    console.out(
        f"Bundle written to {result.path}\nServe it with: chainzrule-serve --repository {config.repository}",
        highlight=False,
    )
