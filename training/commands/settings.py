"""The settings of each command: those of the library, and where they are read from and written to."""

from pathlib import Path

from pydantic import Field

from training.config import FitConfig
from training.tuning.settings import TuneConfig

CONFIG_HELP = "TOML file of settings, by the names of these flags; a flag wins over it"
TEXT_FILE = "JSON file to write every figure into"


class FitCommand(FitConfig):
    """Train a ChainzRule network on a table or on a named data set and write its bundle into a repository."""

    config: Path | None = Field(None, description=CONFIG_HELP)


class TuneCommand(TuneConfig):
    """Choose the weight λ of the derivative penalty along the front of accuracy and sensitivity, then train by it."""

    config: Path | None = Field(None, description=CONFIG_HELP)
    output: Path | None = Field(
        None, description="folder to write front.svg and front.json into; by default tuning/ and the model's name"
    )
    fit: bool = Field(True, description="train with what was chosen, and write the bundle")


class FoldsCommand(FitConfig):
    """Train and measure by k-fold cross-validation, beside what is to be compared; writes no bundle."""

    config: Path | None = Field(None, description=CONFIG_HELP)
    folds: int = Field(5, ge=2, description="parts that the rows are dealt into; each is tested once")
    repeats: int = Field(1, ge=1, description="how often the rows are dealt anew")
    jobs: int = Field(1, ge=1, description="folds that are trained at the same time, each in a process of its own")
    output: Path | None = Field(None, description=TEXT_FILE)


COMMANDS: dict[str, type[FitConfig]] = {"fit": FitCommand, "tune": TuneCommand, "folds": FoldsCommand}
Command = FitCommand | TuneCommand | FoldsCommand

HEADINGS: dict[str, tuple[str, ...]] = {
    "search": ("trials", "weight_range", "widths", "learning_rates", "study", "output", "fit"),
    "folds": ("folds", "repeats", "jobs"),
    "data": (
        "target",
        "task",
        "drop",
        "numeric",
        "categorical",
        "missing",
        "units",
        "min_category_rows",
        "group",
        "memory",
        "scratch",
        "data",
    ),
    "split and calibration": ("test_share", "validation_share", "calibration_share", "temperature"),
    "network": ("hidden", "degree", "bound"),
    "derivative penalty (DREG)": (
        "dreg",
        "dreg_weight",
        "dreg_start",
        "dreg_schedule",
        "dreg_ramp",
        "dreg_target",
    ),
    "training": (
        "epochs",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "class_weight",
        "patience",
        "checkpoints",
        "resume",
        "seed",
    ),
    "machine": ("device", "devices", "precision", "compile", "threads"),
    "bundle, comparison and logs": ("repository", "name", "compare", "report", "report_rows", "log", "log_folder"),
}
"""Where --help lists a setting; those that are nowhere stand under 'options'."""
