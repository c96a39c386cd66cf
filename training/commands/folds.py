"""`chainzrule-train folds`."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict

from rich.console import Console
from rich.table import Table as Grid

from training.commands.files import check_place, write_text
from training.commands.fit import tell_of
from training.commands.settings import FoldsCommand
from training.commands.tune import duration
from training.config import FitConfig
from training.data.load import load
from training.folds import Fold, Spread, cross_validate


def run(command: FoldsCommand) -> None:
    """Cross-validate and print mean ± standard deviation over the folds."""
    console = Console()
    if command.output is not None:
        check_place(command.output, folder=False)
    table = load(command)
    tell_of(table, console)
    total, start, done = command.folds * command.repeats, time.monotonic(), 0

    def tell(fold: Fold) -> None:
        nonlocal done
        done += 1
        left = (time.monotonic() - start) / done * (total - done)
        ahead = f" ({duration(left)} left)" if done < total else ""
        console.out(f"repeat {fold.repeat} fold {fold.number}: {done}/{total} done{ahead}", highlight=False)
        for model, failure in fold.failures.items():
            console.out(f"Note: {model}: {failure}", highlight=False)

    config = FitConfig.model_validate({name: getattr(command, name) for name in FitConfig.model_fields})
    found = cross_validate(config, table, command.folds, command.repeats, tell, jobs=command.jobs)
    spreads = found.spreads()
    console.print(grid(spreads, f"{table.name}, {command.repeats} × {command.folds} folds: mean ± standard deviation"))
    if command.output is not None:
        document = {
            "dataset": table.name,
            "dataset_sha256": table.sha256(),
            "settings": config.model_dump(mode="json"),
            "spreads": {
                model: {figure: asdict(spread) for figure, spread in by_figure.items()}
                for model, by_figure in spreads.items()
            },
            "folds": [asdict(fold) for fold in found.folds],
        }
        write_text(command.output, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        console.out(f"Figures written to {command.output}", highlight=False)


def grid(spreads: Mapping[str, Mapping[str, Spread]], title: str) -> Grid:
    """A row a figure, a column a model."""
    table = Grid(title=title)
    table.add_column("")
    for model in spreads:
        table.add_column(model, justify="right")
    for figure in dict.fromkeys(figure for by_figure in spreads.values() for figure in by_figure):
        cells = [by_figure.get(figure) for by_figure in spreads.values()]
        table.add_row(figure.replace("_", " "), *("–" if cell is None else _shown(cell) for cell in cells))
    return table


def _shown(spread: Spread) -> str:
    if spread.deviation is None:
        return f"{spread.mean:.4f}"
    return f"{spread.mean:.4f} ± {spread.deviation:.4f}"
