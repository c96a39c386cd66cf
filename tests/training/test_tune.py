"""The search for λ: the rule by hand, the search itself on a small table, and the command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import softmax

from model import bundle
from model.heads import OrdinalHead
from model.outputs import Task
from tests.training.tables import make_frame, make_table
from training.cli import main
from training.commands.tune import duration, edge_note
from training.data.table import Column, Table
from training.errors import DataError, DivergenceError
from training.evaluate import Answers
from training.tuning.front import Front, Trial
from training.tuning.losses import never_predicted, row_losses, standard_error
from training.tuning.plot import draw
from training.tuning.settings import TuneConfig
from training.tuning.study import search


def make_trial(number: int, weight: float, loss: float | None, p99: float | None, error: float = 0.02) -> Trial:
    """A trial with figures, or without."""
    failure = "it diverged" if loss is None else None
    metric = None if loss is None else 1 - loss
    return Trial(number, weight, (8,), 2e-3, loss, None if loss is None else error, p99, 1.5, failure, metric)


def make_config(**settings: Any) -> TuneConfig:
    """A short search on small networks."""
    short = {"dataset": "made_up", "hidden": (8,), "epochs": 2, "batch_size": 32, "trials": 4, "compare": ()}
    return TuneConfig.model_validate(short | settings)


FRONT = Front(
    Task.CLASSIFICATION,
    200,
    (
        make_trial(1, 0.0, 0.050, 4.0),
        make_trial(2, 0.1, 0.045, 2.0),
        make_trial(3, 1.0, 0.060, 1.0),
        make_trial(4, 3.0, 0.0651, 0.5),
        make_trial(5, 9.0, 0.30, 0.1),
        make_trial(6, 0.2, 0.055, 2.5),
        make_trial(7, 99.0, None, None),
    ),
)

# The rule


def test_smoothest_within_one_standard_error_is_chosen() -> None:
    """The best loses 4.5 % and has a standard error of 2 %: up to 6.5 % all are as good, and trial 3 is smoothest."""
    assert 2 == FRONT.best().trial.number
    assert 0.065 == pytest.approx(FRONT.limit())
    assert [1, 2, 3, 6] == [each.trial.number for each in FRONT.within()]
    assert 3 == FRONT.chosen.number


def test_front_holds_what_no_other_beats() -> None:
    """By p99: each is better in the loss than all that are smoother. Trials 1 and 6 are beaten in both by trial 2."""
    assert [5, 4, 3, 2] == [each.trial.number for each in FRONT.optimal()]
    for each in FRONT.optimal():
        assert not [
            other
            for other in FRONT.measured()
            if other.loss <= each.loss
            and other.gradient_norm_p99 <= each.gradient_norm_p99
            and (other.loss, other.gradient_norm_p99) != (each.loss, each.gradient_norm_p99)
        ]


def test_choice_is_explained_with_its_figures() -> None:
    """The sentence says λ, both figures, the limit, the best, λ = 0, and how many failed."""
    assert FRONT.reason() == (
        "λ = 1: of 7 trials, 1 of which failed, it has the smallest p99 of the gradient norm, 1, among the 4 whose "
        "negative log-likelihood is no higher than 0.0650: one standard error from the best, 0.0450 at λ = 0.1 (p99 "
        "2). Its negative log-likelihood is 0.0600 and its accuracy 0.9400. Measured on 200 validation rows; the test "
        "rows were not looked at. The likelihood decides, for errors alone cannot tell networks apart where a class is "
        "rare. "
        "Without the penalty the negative log-likelihood is 0.0500 and its accuracy 0.9500, and p99 is 4."
    )
    assert "(patience)" not in FRONT.reason()
    assert "The same rows chose the epoch of each network (patience)" in replace(FRONT, stopped_early=True).reason()
    assert "Each class counts alike" in replace(FRONT, balanced=True).reason()


def test_class_that_is_never_predicted_is_noted() -> None:
    """The note names it, and how to make classes count alike where they do not."""
    assert 1 == len(FRONT.notes())
    blind = replace(FRONT, trials=tuple(replace(trial, never_predicted=("sick",)) for trial in FRONT.trials))
    text = "the chosen network never predicts 'sick', of which there are validation rows"
    assert [f"{text}; --class-weight balanced makes classes count alike"] == blind.notes()[1:]
    assert blind.notes() == blind.document()["notes"]
    assert "--class-weight" not in replace(blind, balanced=True).notes()[1]


def test_few_trials_are_noted() -> None:
    """Below ten that have figures; the note says how many there are."""
    note = (
        "6 trials make a coarse front: between the λ that were tried there may be a better one, and the choice may be "
        "another with other trials; 25 are the default"
    )
    assert [note] == FRONT.notes()
    further = tuple(make_trial(8 + k, 20.0 + k, 0.4, 0.1) for k in range(4))
    assert [] == replace(FRONT, trials=FRONT.trials + further).notes()


def test_record_proves_the_choice() -> None:
    """The rule, the limit that it drew, and the figures of the chosen network and of that without a penalty."""
    record = FRONT.record()
    assert (7, 1, 200) == (record.trials, record.failed, record.validation_rows)
    assert ("negative log-likelihood", "accuracy", FRONT.limit()) == (record.loss, record.metric, record.loss_at_most)
    chosen, plain = record.chosen, record.without_penalty
    assert (1.0, (8,), 2e-3, 0.060, 0.02, 0.94, 1.0) == tuple(chosen.model_dump().values())
    assert plain is not None
    assert (0.0, 0.050, 4.0) == (plain.weight, plain.loss, plain.gradient_norm_p99)
    assert chosen.loss <= record.loss_at_most
    failed = replace(FRONT.trials[0], loss=None, standard_error=None, gradient_norm_p99=None, failure="it diverged")
    assert replace(FRONT, trials=(failed, *FRONT.trials[1:])).record().without_penalty is None
    regression = replace(FRONT, task=Task.REGRESSION).record()
    assert ("mean squared error", "root mean squared error") == (regression.loss, regression.metric)


def test_errors_of_a_regression_are_shown_as_their_root() -> None:
    """A mean squared error of 0.09 is a root mean squared error of 0.3."""
    front = Front(Task.REGRESSION, 50, (make_trial(1, 0.0, 0.09, 1.0, 0.07), make_trial(2, 1.0, 0.15, 0.5, 0.07)))
    assert "root mean squared error is no higher than 0.4000" in front.reason()
    assert 2 == front.chosen.number


def test_settings_of_a_trial_without_penalty_have_none_at_all() -> None:
    """λ = 0 at the end would be undone by a λ at the start."""
    assert {"dreg_weight": 0.0, "dreg_start": 0.0, "hidden": (8,), "learning_rate": 2e-3} == FRONT.trials[0].settings()
    assert "dreg_start" not in FRONT.trials[1].settings()


# Losses and their standard errors


def test_standard_error_of_a_mean() -> None:
    """SciPy's; of a single row 0."""
    losses = np.random.default_rng(0).exponential(size=40)
    assert float(stats.sem(losses)) == pytest.approx(standard_error(losses))
    assert 0.0 == standard_error(losses[:1])


def test_loss_of_each_row() -> None:
    """The negative log of the probability of the true class or level, by its weight; squared error."""
    rows = np.array([0, 1, 2])
    zeros = np.zeros(3, np.float32)

    def answers(**prediction: list[Any]) -> Answers:
        return Answers({name: np.array(values, np.float32) for name, values in prediction.items()}, zeros, zeros, zeros)

    classes = make_table(Task.CLASSIFICATION)
    logits = [[2.0, -1.0, 0.5], [0.0, 3.0, 1.0], [90.0, -90.0, 0.0]][: len(rows)]
    logits = [row[: len(classes.classes)] for row in logits]
    truth = -stats.multinomial.logpmf(np.eye(len(logits[0]))[classes.y[rows]], 1, softmax(logits, axis=1))
    assert truth.tolist() == pytest.approx(row_losses(answers(logits=logits), classes, rows).tolist())
    weights = np.arange(1.0, len(logits[0]) + 1)
    weighted = row_losses(answers(logits=logits), classes, rows, weights)
    assert (truth * weights[classes.y[rows]]).tolist() == pytest.approx(weighted.tolist())
    levels = make_table(Task.ORDINAL)
    head = OrdinalHead(len(levels.classes))
    for row in rows:
        scores = torch.tensor([[0.7 - row]])
        cumulative = head.predict(scores)["logits"].tolist()
        loss = head.loss(scores, torch.tensor(levels.y[[row]])).item()
        assert [loss] == pytest.approx(row_losses(answers(logits=cumulative), levels, np.array([row])).tolist(), 1e-5)
    alike = [[1.0] * (len(levels.classes) - 1)]  # thresholds that float32 cannot tell apart
    assert np.isfinite(row_losses(answers(logits=alike), levels, rows[:1])).all()
    values = make_table(Task.REGRESSION)
    off = (values.y[:3] + np.array([2.0, 0, -1.0])).tolist()
    assert [4.0, 0.0, 1.0] == pytest.approx(row_losses(answers(value=off), values, rows).tolist(), abs=1e-4)


def test_which_classes_are_never_predicted() -> None:
    """Those of the rows alone, by name."""
    table = make_table(Task.CLASSIFICATION)
    rows = np.arange(20)
    zeros, first = np.zeros(20, np.float32), np.eye(len(table.classes), dtype=np.float32)[np.zeros(20, int)]
    answers = Answers({"probabilities": first}, zeros, zeros, zeros)
    there = sorted(set(table.y[rows].tolist()) - {0})
    assert tuple(table.classes[k] for k in there) == never_predicted(answers, table, rows)
    assert there


# The search


def test_rare_class_is_not_given_up() -> None:
    """Two networks make the same errors, for no row is likelier sick than well; one knows which rows are at risk.

    The flat one is smoother. By the share of errors it would be as good.
    """
    y = np.zeros(500, np.int64)
    y[:45], y[100:104] = 1, 1  # of the first hundred 45 %, of the others 1 %
    table = Table(
        "rare", np.zeros((500, 1), np.float32), y, (Column("a"),), "health", Task.CLASSIFICATION, ("no", "yes")
    )
    rows, zeros = np.arange(500), np.zeros(500, np.float32)
    trials = []
    for number, (risk, rest, p99) in enumerate([(0.45, 0.01, 2.0), (0.098, 0.098, 0.0)], start=1):
        sick = np.where(rows < 100, risk, rest)
        found = {
            "logits": np.log(np.stack((1 - sick, sick), axis=1)),
            "probabilities": np.stack((1 - sick, sick), axis=1),
        }
        answers = Answers({name: values.astype(np.float32) for name, values in found.items()}, zeros, zeros, zeros)
        assert ("yes",) == never_predicted(answers, table, rows)
        losses = row_losses(answers, table, rows)
        trials.append(make_trial(number, 0.1, float(losses.mean()), p99, standard_error(losses)))
    assert 1 == Front(Task.CLASSIFICATION, 500, tuple(trials)).chosen.number


def test_front_says_how_it_was_measured() -> None:
    """Balanced classes and patience are those of the settings."""
    plain = search(make_config(trials=2), make_table())
    front = search(make_config(trials=2, class_weight="balanced", validation_share=0.25, patience=1), make_table())
    assert ((False, False), (True, True)) == (
        (plain.balanced, plain.stopped_early),
        (front.balanced, front.stopped_early),
    )


def test_settings_without_effect_leave_a_study_as_it_is(tmp_path: Path) -> None:
    """How many rows the report shows is no figure of a trial."""
    path = tmp_path / "study.journal"
    trials = search(make_config(study=path, trials=2), make_table()).trials
    assert trials == search(make_config(study=path, trials=2, report_rows=0), make_table()).trials


@pytest.mark.parametrize("task", list(Task))
def test_search_tries_no_penalty_and_the_usual_one_first(task: Task) -> None:
    """λ = 0, then the default, then what Optuna proposes within the range; all are told of in order."""
    told: list[Trial] = []
    config = make_config()
    front = search(config, make_table(task), told.append)
    assert list(front.trials) == told
    assert [1, 2, 3, 4] == [trial.number for trial in front.trials]
    usual = 3.0  # 1,000 / 90 and 100 × 4 / 90 are above the greatest default
    assert [0.0, usual] == pytest.approx([trial.weight for trial in front.trials[:2]])
    assert all(usual / 1000 <= trial.weight <= usual * 100 for trial in front.trials[2:])
    assert (task, 30) == (front.task, front.rows)  # 200 rows less 40 of the test and 40 of calibration: a quarter
    assert front.chosen in front.trials


def test_search_is_repeatable_and_follows_its_seed() -> None:
    """The same seed, the same trials, times aside; another seed, others."""

    def weights(seed: int) -> list[tuple[float, float | None, float | None]]:
        trials = search(make_config(seed=seed), make_table()).trials
        return [(trial.weight, trial.loss, trial.gradient_norm_p99) for trial in trials]

    assert weights(0) == weights(0)
    assert weights(0) != weights(1)


def test_test_rows_are_not_looked_at() -> None:
    """Other features in the rows of the published test split change no figure."""
    table = make_table(test_rows=50)
    x = table.x.copy()
    x[-50:] += 3.0
    moved = type(table)(**{**vars(table), "x": x})
    found = [
        [(trial.loss, trial.gradient_norm_p99) for trial in search(make_config(trials=2), each).trials]
        for each in (table, moved)
    ]
    assert found[0] == found[1]


def test_widths_and_learning_rates_are_searched_when_asked_for() -> None:
    """One width for all layers, and rates within their range."""
    config = make_config(hidden=(8, 8), widths=(2, 3), learning_rates=(1e-4, 1e-3), trials=5)
    proposed = search(config, make_table()).trials[1:]
    assert {trial.hidden for trial in proposed} <= {(2, 2), (3, 3)}
    assert all(1e-4 <= trial.learning_rate <= 1e-3 for trial in proposed)


def test_study_goes_on_where_it_was(tmp_path: Path) -> None:
    """Trials of an earlier run are told of again and not trained again; new ones come behind them."""
    table, path = make_table(), tmp_path / "study.journal"
    first = search(make_config(study=path, trials=3), table)
    second = search(make_config(study=path, trials=5), table)
    assert first.trials == second.trials[:3]
    assert 5 == len({trial.weight for trial in second.trials})
    assert second.trials == search(make_config(study=path, trials=5), table).trials


def test_study_that_was_torn_by_a_kill_goes_on(tmp_path: Path) -> None:
    """A last line that was written in part is cut off: the trials before it are kept, that of the line is repeated."""
    path = tmp_path / "study.journal"
    trials = search(make_config(study=path, trials=3), make_table()).trials
    path.write_bytes(path.read_bytes()[:-20])
    again = search(make_config(study=path, trials=3), make_table()).trials
    assert trials[:2] == again[:2]
    assert 3 == len(again)


def test_study_of_something_else_is_refused(tmp_path: Path) -> None:
    """Another table or other settings: their figures cannot be compared."""
    path = tmp_path / "study.journal"
    search(make_config(study=path, trials=2), make_table())
    for config, table in (
        (make_config(study=path), make_table(seed=1)),
        (make_config(study=path, degree=2), make_table()),
    ):
        with pytest.raises(DataError, match=r"study\.journal: expected a study of this table with these settings"):
            search(config, table)


@pytest.mark.parametrize("text", ["not a study\n", "not a study", '{"trials": 3}\n'])
def test_file_that_is_no_study_is_refused(tmp_path: Path, text: str) -> None:
    """A file of something else: the message names it, and it stays as it was."""
    path = tmp_path / "study.journal"
    path.write_text(text)
    with pytest.raises(DataError, match=r"study\.journal: expected a file for the study's trials"):
        search(make_config(study=path), make_table())
    assert text == path.read_text()


def test_failed_trials_are_told_and_the_search_goes_on() -> None:
    """λ of 10³⁷ overflows: those trials have no figures and a reason, and the one without a penalty is chosen."""
    front = search(make_config(weight_range=(1e37, 1e38)), make_table())
    assert [False, True, True, True] == [trial.failure is not None for trial in front.trials]
    assert "diverged" in str(front.trials[1].failure)
    assert 0.0 == front.chosen.weight
    assert "3 of which failed" in front.reason()
    ET.fromstring(draw(front))


def test_search_in_which_all_fail_says_so() -> None:
    """No trial has figures: the first one's reason."""
    with pytest.raises(DivergenceError, match="each of the 3 trials failed; the first: training diverged"):
        search(make_config(trials=3, learning_rate=1e6, bound=None, hidden=(8, 8), epochs=5), make_table())


# The drawing, the file and the command


def test_drawing_is_the_same_each_time_and_names_its_axes() -> None:
    """An SVG that parses, with λ of the chosen one, both axes and the limit."""
    drawn = draw(FRONT)
    assert drawn == draw(FRONT)
    texts = " ".join(ET.fromstring(drawn).itertext())
    for part in (
        "negative log-likelihood on validation rows",
        "p99 of the gradient norm",
        "chosen: λ = 1",
        "λ = 0",
        "standard error",
    ):
        assert part in texts


def test_document_holds_every_figure() -> None:
    """As JSON: the choice, its reason, the front and all trials."""
    document = json.loads(json.dumps(FRONT.document()))
    assert (3, [5, 4, 3, 2], 7) == (document["chosen"], document["front"], len(document["trials"]))
    assert FRONT.reason() == document["reason"]
    metrics = [trial["metric"] for trial in document["trials"]]
    assert 0.95 == pytest.approx(metrics[0])
    assert metrics[6] is None


def test_duration() -> None:
    """As a person says it."""
    assert ["40 s", "12 min", "1 h 50 min"] == [duration(seconds) for seconds in (40.2, 700, 6600)]


def test_command_chooses_trains_and_leaves_its_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a trial with the time left, the reason, both files, and a bundle that was trained with the chosen λ."""
    table, output, repository = tmp_path / "rods.csv", tmp_path / "front", tmp_path / "bundles"
    make_frame(200).to_csv(table, index=False)
    short = ["--epochs", "2", "--hidden", "4", "--compare=none", "--no-report", "--trials", "3"]
    places = ["--output", str(output), "--repository", str(repository)]
    main(["tune", str(table), "--target", "outcome", *short, *places])
    printed = capsys.readouterr().out
    assert "trial 1/3  λ 0  negative log-likelihood " in printed
    assert "  accuracy " in printed
    assert " left)" in printed
    document = json.loads((output / "front.json").read_text())
    assert document["reason"] in printed
    ET.parse(output / "front.svg")
    manifest = bundle.read(repository / "rods" / "1").manifest
    chosen = document["trials"][document["chosen"] - 1]
    assert chosen["weight"] == manifest.provenance.dreg.end_weight
    assert "Note: 3 trials make a coarse front" in printed
    tuning = manifest.provenance.tuning
    assert tuning is not None
    assert (chosen["weight"], chosen["loss"], chosen["gradient_norm_p99"]) == (
        tuning.chosen.weight,
        tuning.chosen.loss,
        tuning.chosen.gradient_norm_p99,
    )
    assert (3, document["loss_at_most"], document["validation_rows"]) == (
        tuning.trials,
        tuning.loss_at_most,
        tuning.validation_rows,
    )
    assert {"front.json", "front.svg"} == {path.name for path in output.iterdir()}


def test_command_without_fit_writes_no_bundle(tmp_path: Path) -> None:
    """`--no-fit` ends with the choice."""
    table, repository = tmp_path / "rods.csv", tmp_path / "bundles"
    make_frame(200).to_csv(table, index=False)
    short = ["--epochs", "1", "--hidden", "4", "--trials", "2", "--no-fit", "--output", str(tmp_path / "front")]
    main(["tune", str(table), "--target", "outcome", *short, "--repository", str(repository)])
    assert not repository.exists()
    assert (tmp_path / "front" / "front.json").is_file()


def test_each_model_has_a_front_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--output` it lies in a folder of the model's name, so that no search replaces another model's."""
    monkeypatch.chdir(tmp_path)
    make_frame(200).to_csv("rods.csv", index=False)
    short = ["--target", "outcome", "--epochs", "1", "--hidden", "4", "--trials", "2", "--no-fit"]
    main(["tune", "rods.csv", *short])
    main(["tune", "rods.csv", *short, "--name", "other"])
    for name in ("rods", "other"):
        assert {"front.json", "front.svg"} == {path.name for path in (tmp_path / "tuning" / name).iterdir()}


def test_output_that_is_a_file_is_refused_before_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and one line, and no trial was trained."""
    (tmp_path / "front").write_text("a file")
    with pytest.raises(SystemExit) as caught:
        main(["tune", "digits", "--output", str(tmp_path / "front")])
    printed = capsys.readouterr()
    assert (2, "") == (caught.value.code, printed.out)
    assert f"chainzrule-train: {tmp_path / 'front'}: expected a folder, got a file\n" == printed.err


@pytest.mark.parametrize(
    ("flag", "value"), [("--trials", "1"), ("--weight-range", "1,0.1"), ("--weight-range", "0,1"), ("--widths", "0")]
)
def test_wrong_flags_of_a_search_are_refused(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    """One line that begins with the flag."""
    with pytest.raises(SystemExit):
        main(["tune", "digits", flag, value])
    assert capsys.readouterr().err.startswith(f"chainzrule-train: {flag}: ")


def test_choice_at_the_end_of_the_range_is_noted() -> None:
    """A chosen λ of 1 is near 1.5, the greatest that was tried, and far from 10."""
    note = edge_note(FRONT.chosen, 0.001, 1.5)
    assert note is not None
    assert "a wider --weight-range than 0.001,1.5" in note
    assert edge_note(FRONT.chosen, 0.001, 10.0) is None
