"""`chainzrule-train tune`."""

import json
import statistics
from pathlib import Path

from rich.console import Console

from model import bundle
from training.checkpoint import check_unused
from training.commands.files import check_place, write_text
from training.commands.fit import tell_of, tell_of_versions, train_and_tell
from training.commands.naming import check_before_reading
from training.commands.settings import TuneCommand
from training.config import FitConfig
from training.data.load import load
from training.tuning.front import LOSSES, METRICS, Trial
from training.tuning.plot import draw
from training.tuning.study import search

OUTPUT = Path("tuning")
FRONT_FILE, DRAWING_FILE = "front.json", "front.svg"
NEAR = 2.0  # a factor


def run(command: TuneCommand) -> None:
    """Search, explain and draw the choice, and train by it."""
    console = Console()
    if command.output is not None:
        check_place(command.output, folder=True)
    if command.study is not None:
        check_place(command.study, folder=False)
    if command.fit:
        check_unused(command.checkpoints, resume=command.resume)
        check_before_reading(command)
    table = load(command)
    if command.fit:
        bundle.check_writable(command.repository, command.name or table.name)
    output = command.output
    if output is None:
        output = OUTPUT / (command.name or table.name)
        check_place(output, folder=True)
    tell_of(table, console)
    if command.fit:
        tell_of_versions(command, table, console)
    seconds: list[float] = []

    def tell(trial: Trial) -> None:
        seconds.append(trial.seconds)
        loss, shown = LOSSES[table.task]
        figures = f"failed: {trial.failure}"
        if trial.loss is not None and trial.gradient_norm_p99 is not None:
            figures = f"{loss} {shown(trial.loss):.4f}  "
            if METRICS[table.task] != loss:
                figures += f"{METRICS[table.task]} {trial.metric:.4f}  "
            figures += f"gradient norm p99 {trial.gradient_norm_p99:.4f}"
        left = statistics.fmean(seconds) * (command.trials - trial.number)
        searched = f"λ {trial.weight:.4g}"
        if command.widths:
            searched += f"  hidden {','.join(map(str, trial.hidden))}"
        if command.learning_rates:
            searched += f"  learning rate {trial.learning_rate:.3g}"
        ahead = f"  ({duration(left)} left)" if trial.number < command.trials else ""
        console.out(f"trial {trial.number}/{command.trials}  {searched}  {figures}{ahead}", highlight=False)

    front = search(command, table, tell)
    write_text(output / FRONT_FILE, json.dumps(front.document(), indent=2, ensure_ascii=False) + "\n")
    write_text(output / DRAWING_FILE, draw(front))
    console.out(front.reason(), highlight=False)
    edge = edge_note(front.chosen, *front.weight_range)
    for note in front.notes() + ([edge] if edge else []):
        console.out(f"Note: {note}", highlight=False)
    console.out(f"Front written to {output / DRAWING_FILE} and {FRONT_FILE} beside it", highlight=False)
    if command.fit:
        settings = {name: getattr(command, name) for name in FitConfig.model_fields} | front.chosen.settings()
        train_and_tell(FitConfig.model_validate(settings), table, console, front.record())


def edge_note(chosen: Trial, least: float, greatest: float) -> str | None:
    """Advice where the chosen λ lies at the upper end of those that were tried; None elsewhere."""
    if chosen.weight <= greatest / NEAR:
        return None
    return (
        f"λ was tried up to {greatest:.4g}, and the chosen one is near that; a wider --weight-range than "
        f"{least:.4g},{greatest:.4g} may hold a smoother one"
    )


def duration(seconds: float) -> str:
    """A time as a person says it: 40 s, 12 min, 1 h 5 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
