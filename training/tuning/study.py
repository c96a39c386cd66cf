"""The search: Optuna proposes, networks are trained on the training rows and measured on validation rows.

The test rows are never looked at. Trials share the split, the seed and so the first weights and the order of the rows,
so that they differ by what is searched alone. Norms are taken with each network's temperature (found on the calibration
rows): else a large λ could win by nothing but lower confidence.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from model.outputs import Task
from training.config import FitConfig
from training.data.table import Split, Table, split
from training.errors import DataError, DivergenceError
from training.pipeline import learn
from training.step import class_weights
from training.tuning.front import LOSSES, METRICS, Front, Trial
from training.tuning.losses import never_predicted, row_losses, standard_error
from training.tuning.settings import TuneConfig

VALIDATION_SHARE = 0.25  # of the training rows, where the settings name none
STUDY = "chainzrule"
WITHOUT_EFFECT = {
    "name",
    "repository",
    "report",
    "report_rows",
    "compare",
    "checkpoints",
    "resume",
    "log",
    "log_folder",
    "memory",
    "scratch",
    "data",
    "dataset",
    "trials",
    "study",
}
"""Settings that change no figure of a trial."""


def search(config: TuneConfig, table: Table, on_trial: Callable[[Trial], None] = lambda trial: None) -> Front:
    """Try `config.trials` networks, those of an earlier run of the same study included.

    The first has no penalty, the second the usual weight. An interrupted search goes on from the trials that ended; it
    does not propose the same ones as an unbroken search would have.

    Args:
        config: the settings.
        table: what to train on.
        on_trial: told of each trial as it ends, of those of an earlier run first.

    Raises:
        DataError: the table has too few rows, or the study is damaged or of another table or other settings.
        DivergenceError: every trial diverged.
    """
    base = FitConfig.model_validate({name: getattr(config, name) for name in FitConfig.model_fields})
    base = base.model_copy(
        update={
            "validation_share": config.validation_share or VALIDATION_SHARE,
            "checkpoints": None,
            "resume": False,
            "log": "none",
        }
    )
    parts = split(
        table,
        test_share=base.test_share,
        calibration_share=base.calibration_share,
        validation_share=base.validation_share,
        seed=base.seed,
    )
    study = _open(config, base, table)
    least, greatest = weights_tried(config, table.task, len(parts.training), len(table.columns))
    trials: list[Trial] = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)):
        if "trial" in frozen.user_attrs:
            trials.append(replace(_thawed(frozen), number=len(trials) + 1))
            on_trial(trials[-1])
    while len(trials) < config.trials:
        if not trials:
            trial = _measure(base.model_copy(update={"dreg_weight": 0.0, "dreg_start": 0.0}), table, parts)
            study.add_trial(_frozen(trial))
            study.enqueue_trial(
                {
                    "dreg_weight": min(
                        max(base.weight_for(table.task, len(parts.training), len(table.columns)), least), greatest
                    )
                }
            )
        else:
            asked = study.ask()
            trial = _measure(base.model_copy(update=_proposed(asked, config, base, (least, greatest))), table, parts)
            asked.set_user_attr("trial", _document(trial))
            if trial.failure is None:
                study.tell(asked, _values(trial))
            else:
                study.tell(asked, state=TrialState.FAIL)
        trials.append(replace(trial, number=len(trials) + 1))
        on_trial(trials[-1])
    if all(trial.failure for trial in trials):
        raise DivergenceError(f"each of the {len(trials)} trials failed; the first: {trials[0].failure}")
    return Front(
        table.task,
        len(parts.validation),
        tuple(trials),
        balanced=base.class_weight == "balanced",
        stopped_early=base.patience is not None,
        weight_range=(least, greatest),
        settings=searched_with(base, table),
    )


def searched_with(config: FitConfig, table: Table) -> dict[str, Any]:
    """What the figures of every trial follow from, but for what is searched and how the rows are watched."""
    searched = {"dreg_weight", "dreg_start", "hidden", "learning_rate", "validation_share"}
    settings = config.model_dump(mode="json", include=set(FitConfig.model_fields) - WITHOUT_EFFECT - searched)
    return settings | {"table": table.sha256()}


def _proposed(trial: optuna.Trial, config: TuneConfig, base: FitConfig, weights: tuple[float, float]) -> dict[str, Any]:
    found: dict[str, Any] = {"dreg_weight": trial.suggest_float("dreg_weight", *weights, log=True)}
    if config.widths:
        found["hidden"] = (trial.suggest_categorical("width", config.widths),) * len(base.hidden)
    if config.learning_rates:
        found["learning_rate"] = trial.suggest_float("learning_rate", *config.learning_rates, log=True)
    return found


def weights_tried(config: TuneConfig, task: Task, rows: int, features: int) -> tuple[float, float]:
    """The least and the greatest λ besides 0: a thousandth and a hundredfold of the usual one, if nothing is said."""
    usual = config.model_copy(update={"dreg_weight": None}).weight_for(task, rows, features)
    return config.weight_range or (usual / 1000, usual * 100)


def _measure(config: FitConfig, table: Table, parts: Split) -> Trial:
    """Train and measure one network; the validation rows stand where the test rows would."""
    start = time.monotonic()
    trial = Trial(
        0,
        config.weight_for(table.task, len(parts.training), len(table.columns)),
        config.hidden,
        config.learning_rate,
        None,
        None,
        None,
        0.0,
    )
    try:
        learned = learn(config, table, replace(parts, test=parts.validation), lambda network, epoch: None)
    except DivergenceError as error:
        return replace(trial, failure=str(error), seconds=time.monotonic() - start)
    weights = class_weights(table, parts.training).double().numpy() if config.class_weight == "balanced" else None
    losses = row_losses(learned.test_answers, table, parts.validation, weights)
    return replace(
        trial,
        loss=float(losses.mean()),
        standard_error=standard_error(losses),
        metric=learned.evaluation.metrics[METRICS[table.task].replace(" ", "_")],
        never_predicted=never_predicted(learned.test_answers, table, parts.validation),
        gradient_norm_p99=learned.evaluation.gradient_norm.p99,
        seconds=time.monotonic() - start,
    )


# Optuna's side


def _open(config: TuneConfig, base: FitConfig, table: Table) -> optuna.Study:
    """A new study, or the one in the file of `config.study`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    circumstances = _circumstances(config, base, table)
    storage: BaseStorage = InMemoryStorage()
    try:
        if config.study is not None:
            _mend_journal(config.study)
            storage = JournalStorage(JournalFileBackend(str(config.study)))
        study = optuna.create_study(
            storage=storage, study_name=STUDY, directions=["minimize", "minimize"], load_if_exists=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{config.study}: expected a file for the study's trials: {error}") from error
    known = study.user_attrs.get("circumstances")
    if known is None:
        study.set_user_attr("circumstances", circumstances)
    elif known != circumstances:
        raise DataError(
            f"{config.study}: expected a study of this table with these settings, got one of another; "
            "give --study another file"
        )
    done = len(study.get_trials(deepcopy=False))
    # The proposals of an earlier run are not to be made again.
    study.sampler = optuna.samplers.TPESampler(
        seed=(config.seed + done) % 2**32, n_startup_trials=min(10, config.trials // 2)
    )
    return study


def _mend_journal(path: Path) -> None:
    """Cut off the last line of a journal where a kill has torn it; Optuna would trip over it.

    Raises:
        ValueError: the file is no journal; Optuna would write behind whatever it holds.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        first = file.readline()
        if first and not first.startswith(b'{"op_code"'):
            raise ValueError("it holds something else")
        file.seek(0)
        whole = sum(len(line) for line in file if line.endswith(b"\n"))
        file.truncate(whole)


def _circumstances(config: TuneConfig, base: FitConfig, table: Table) -> str:
    """SHA-256 of what the figures of a trial follow from."""
    settings = config.model_dump(mode="json", include=set(TuneConfig.model_fields) - WITHOUT_EFFECT) | {
        "validation_share": base.validation_share
    }
    settings |= {"table": table.sha256(), "loss": LOSSES[table.task][0]}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _document(trial: Trial) -> dict[str, Any]:
    return {name: getattr(trial, name) for name in Trial.__dataclass_fields__ if name != "number"}


def _thawed(frozen: FrozenTrial) -> Trial:
    document = frozen.user_attrs["trial"]
    return Trial(number=0, **{**document, **{name: tuple(document[name]) for name in ("hidden", "never_predicted")}})


def _frozen(trial: Trial) -> FrozenTrial:
    """A trial that Optuna did not propose."""
    attributes = {"trial": _document(trial)}
    if trial.failure is not None:
        return create_trial(state=TrialState.FAIL, user_attrs=attributes)
    return create_trial(values=_values(trial), user_attrs=attributes)


def _values(trial: Trial) -> list[float]:
    if trial.loss is None or trial.gradient_norm_p99 is None:
        raise ValueError(f"trial {trial.number}: expected figures, got none")
    return [trial.loss, trial.gradient_norm_p99]
