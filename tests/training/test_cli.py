"""`chainzrule-train`, in process and as the command that is installed: what it prints, refuses and leaves behind."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from model import bundle
from model.bundle import MANIFEST_FILE, MODEL_FILE
from model.manifest import Comparison, Evaluation
from tests.training.tables import make_frame
from training.cli import main
from training.commands.parser import parse
from training.commands.settings import COMMANDS, HEADINGS
from training.config import FitConfig

COMMAND = Path(sys.executable).with_name("chainzrule-train")
SHORT = ("--epochs", "1", "--hidden", "4", "--compare=none", "--no-report")


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run without the developer's own settings, on a terminal of 80 columns."""
    monkeypatch.delenv("CHAINZRULE_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Where bundles go; it is not there yet."""
    return tmp_path / "bundles"


def exit_code(*arguments: object) -> object:
    """What the command exits with; None where it returns."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return exit_.code
    return None


def files_under(folder: Path) -> list[str]:
    """Every file and folder below, hidden ones included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Write a frame as CSV."""
    frame.to_csv(path, index=False)
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The message of a run that must end with exit code 2, one line and no traceback; less the program's name."""
    assert 2 == exit_code(*arguments)
    message = capsys.readouterr().err
    assert 1 == len(message.splitlines())
    assert message.startswith("chainzrule-train: ")
    return message.removeprefix("chainzrule-train: ").rstrip()


# What a run prints and writes


def test_installed_command_trains_on_digits(repository: Path) -> None:
    """The console script trains, shows each network's progress and the figures side by side, and names the bundle."""
    command = [str(COMMAND), "fit", "digits", "--epochs", "3", "--hidden", "16,8", "--repository", str(repository)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert (0, "") == (run.returncode, run.stderr)
    assert "digits: 1,797 rows, 64 features, classification of 'digit' into 10 classes" in run.stdout
    for network in ("ChainzRule", "ReLU network", "GELU network"):
        assert f"{network} epoch 1/3  loss" in run.stdout
        assert f"{network} epoch 3/3  loss" in run.stdout
    for label in (
        "accuracy",
        "expected calibration error",
        "gradient norm, p99",
        "tail ratio p99 / mean",
        "parameters",
    ):
        assert label in run.stdout
    path = repository / "digits" / "1"
    assert f"chainzrule-serve --repository {repository}" in unwrapped(run.stdout)
    assert f"Bundle written to {path}" in unwrapped(run.stdout)
    manifest = bundle.read(path).manifest
    assert ((16, 8), 3, 0) == (manifest.architecture.hidden, manifest.provenance.epochs, manifest.provenance.seed)
    measured: list[Evaluation | Comparison] = [manifest.evaluation, *manifest.comparisons]
    for evaluation in measured:
        assert f"{evaluation.metrics['accuracy']:.4f}" in run.stdout
        assert evaluation.parameters is None or f"{evaluation.parameters:,}" in run.stdout


def unwrapped(output: str) -> str:
    """An output whose long lines were broken at blanks, as one line."""
    return " ".join(output.split())


def test_paths_are_printed_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path of the bundle can be copied from the output: no line break within it, however long it is."""
    repository = tmp_path / ("a" * 60) / ("b" * 60)
    assert None is exit_code("fit", "breast_cancer", *SHORT, "--repository", repository)
    output = capsys.readouterr().out
    assert str(repository / "breast_cancer" / "1") in output
    assert f"--repository {repository}" in unwrapped(output)


def test_table_of_ones_own(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A CSV with its flags: the bundle is named after the file, with the columns and classes of the table."""
    frame = make_frame(150).assign(number=range(150), outcome=["no", "yes", "maybe"] * 50)
    table = write(frame, tmp_path / "rods.csv")
    flags = ("--target", "outcome", "--drop", "number", "--repository", repository, "--seed", "3")
    assert None is exit_code("fit", table, *flags, *SHORT)
    assert "rods: 150 rows, 2 features, classification of 'outcome' into 3 classes" in capsys.readouterr().out
    manifest = bundle.read(repository / "rods" / "1").manifest
    assert ["width", "height"] == [feature.name for feature in manifest.features]
    assert (("maybe", "no", "yes"), 3, ()) == (manifest.target.classes, manifest.provenance.seed, manifest.comparisons)


@pytest.mark.parametrize("name", ["price [usd]", "yield [/ha]", "[bold]", "share [%]"])
def test_names_are_printed_as_they_are(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A unit in brackets is part of a column's name, not a style of the output."""
    table = write(make_frame().rename(columns={"outcome": name}), tmp_path / "rods.csv")
    assert None is exit_code("fit", table, "--target", name, *SHORT, "--repository", repository)
    assert f"classification of {name!r} into 3 classes" in capsys.readouterr().out
    assert name == bundle.read(repository / "rods" / "1").manifest.target.name


@pytest.mark.parametrize("task", ["ordinal", "regression"])
def test_task_may_be_given(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str], task: str) -> None:
    """`--task` decides; the summary shows the figures of that task, for both networks."""
    table = write(make_frame(), tmp_path / "rods.csv")
    flags = ("--target", "outcome", "--task", task, "--epochs", 1, "--hidden", 4, "--repository", repository)
    assert None is exit_code("fit", table, *flags)
    output = capsys.readouterr().out
    assert f"{task} of 'outcome'" in output
    assert "mean absolute error" in output
    assert "ReLU network" in output


def test_flags_reach_the_manifest(repository: Path) -> None:
    """Every flag of the architecture and of the training is the one that the run had."""
    flags = (
        *("--name", "mine", "--hidden", "5", "--hidden", "4", "--degree", "2", "--bound", "none"),
        *("--dreg", "projected", "--dreg-weight", "0.02", "--dreg-start", "0.3", "--dreg-schedule", "cosine"),
        *("--dreg-ramp", "0.25,0.75", "--epochs", "2", "--batch-size", "50", "--learning-rate", "0.003"),
        *(
            "--weight-decay",
            "0.01",
            "--seed",
            "9",
            "--test-share",
            "0.3",
            "--calibration-share",
            "0.1",
            "--compare=none",
            "--no-report",
        ),
    )
    assert None is exit_code("fit", "breast_cancer", *flags, "--repository", repository)
    manifest = bundle.read(repository / "mine" / "1").manifest
    assert {"hidden": (5, 4), "degree": 2, "bound": None} == manifest.architecture.model_dump(exclude={"parameters"})
    assert {
        "form": "projected",
        "schedule": "cosine",
        "start_weight": 0.3,
        "end_weight": 0.02,
        "ramp": (0.25, 0.75),
        "reached_weight": pytest.approx(0.02),
    } == manifest.provenance.dreg.model_dump()
    got = manifest.provenance.model_dump(include={"epochs", "batch_size", "learning_rate", "weight_decay", "seed"})
    assert {"epochs": 2, "batch_size": 50, "learning_rate": 0.003, "weight_decay": 0.01, "seed": 9} == got
    assert {"training": 341, "validation": 0, "calibration": 57, "test": 171} == manifest.provenance.rows.model_dump()


def test_no_flag_is_taken_from_the_environment(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is called as a flag changes nothing."""
    for variable in ("SEED", "FIT", "FIT__SEED", "EPOCHS"):
        monkeypatch.setenv(variable, "7")
    assert None is exit_code("fit", "breast_cancer", *SHORT, "--repository", repository)
    provenance = bundle.read(repository / "breast_cancer" / "1").manifest.provenance
    assert (0, 1) == (provenance.seed, provenance.epochs)


# Help


def test_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """`fit --help` has each field of the settings as a flag, with what it is for."""
    assert 0 == exit_code("fit", "--help")
    output = capsys.readouterr().out
    squeezed = "".join(output.split())
    assert "DATASET" in output
    for name, field in FitConfig.model_fields.items():
        assert field.description is not None
        assert "".join(field.description.split()) in squeezed
        if name != "dataset":
            assert f"--{name.replace('_', '-')}" in output
    assert "--no-report" in output


def test_help_of_the_command_names_its_subcommands(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` says what there is to do."""
    assert 0 == exit_code("--help")
    output = capsys.readouterr().out
    assert "fit" in output
    assert "sensitivity" in output


# What is refused


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--hidden", "0"),
        ("--hidden", "64,-1"),
        ("--hidden", "abc"),
        ("--hidden", "3.5"),
        ("--degree", "0"),
        ("--degree", "two"),
        ("--bound", "0"),
        ("--bound", "-1"),
        ("--bound", "inf"),
        ("--bound", "nan"),
        ("--bound", "wide"),
        ("--dreg", "global"),
        ("--dreg-weight", "-0.1"),
        ("--dreg-weight", "inf"),
        ("--dreg-start", "nan"),
        ("--dreg-schedule", "quadratic"),
        ("--dreg-ramp", "0.5,0.2"),
        ("--dreg-ramp", "0.5"),
        ("--dreg-ramp", "0,0.5,1"),
        ("--dreg-ramp", "0,2"),
        ("--dreg-ramp", "0,b"),
        ("--epochs", "0"),
        ("--epochs", "1.5"),
        ("--batch-size", "0"),
        ("--learning-rate", "0"),
        ("--learning-rate", "nan"),
        ("--weight-decay", "-1"),
        ("--seed", "-1"),
        ("--seed", "4294967296"),
        ("--test-share", "0"),
        ("--test-share", "0.5"),
        ("--calibration-share", "1"),
        ("--task", "ranking"),
        ("--name", "../elsewhere"),
        ("--name", ""),
    ],
)
def test_wrong_value_is_refused(repository: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    """Exit code 2 and one line that begins with the flag; nothing is trained or written."""
    arguments = ("fit", "digits", "--compare=none", "--no-report", "--repository", repository, f"{flag}={value}")
    assert refusal(capsys, *arguments).startswith(f"{flag}: ")
    assert [] == files_under(repository)


def test_each_wrong_flag_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Several wrong flags are all named at once, a line each."""
    assert 2 == exit_code("fit", "digits", "--degree", "0", "--epochs", "none", "--test-share", "0.9")
    lines = capsys.readouterr().err.splitlines()
    assert ["--degree", "--epochs", "--test-share"] == [line.split(": ")[1] for line in lines]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("fit", "digits", "--nonsense", "3"), "--nonsense"),
        (("fit", "digits", "--epochs"), "--epochs"),
        (("fit", "digits", "surplus"), "surplus"),
        (("fit", "digits", "--report=maybe"), "--report"),
        (("fit",), "DATASET"),
        (("train",), "train"),
        ((), "fit"),
    ],
    ids=["unknown flag", "no value", "surplus", "value of a switch", "no data set", "unknown subcommand", "nothing"],
)
def test_wrong_command_line_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str
) -> None:
    """What is no command line at all: exit code 2, and the last line names what is wrong."""
    assert 2 == exit_code(*arguments)
    assert named in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("flag", "value", "got"),
    [
        ("--target", "digit", "'digit'"),
        ("--drop", "pixel_0_0", "('pixel_0_0',)"),
        ("--task", "regression", "'regression'"),
        ("--units", "pixel_0_0=grey", "{'pixel_0_0': 'grey'}"),
    ],
)
def test_flags_of_a_table_are_refused_beside_a_named_data_set(
    repository: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str, got: str
) -> None:
    """A flag that would be without effect is refused."""
    message = refusal(capsys, "fit", "digits", flag, value, "--repository", repository)
    assert f"digits: its columns and its target are known; {flag} is for tables, got {got}" == message


def test_images_without_their_files_are_refused(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data folder that does not hold the data set: the message names the folder that was looked for."""
    message = refusal(capsys, "fit", "mnist", "--data", tmp_path, "--repository", repository)
    assert f"{tmp_path / 'mnist'}: expected a folder with the IDX files of mnist, got none" == message


@pytest.mark.parametrize(
    ("frame", "flags", "part"),
    [
        (make_frame(), (), "expected --target, one of the columns ['width', 'height', 'outcome']"),
        (make_frame(), ("--target", "income"), "got 'income'; did you mean 'outcome'?"),
        (
            make_frame().assign(height="tall"),
            ("--target", "outcome", "--numeric", "height"),
            "column 'height': expected numbers, got 'tall'",
        ),
        (make_frame().assign(height=1), ("--target", "outcome"), "leave it out with --drop height"),
        (make_frame(99), ("--target", "outcome"), "rods: expected at least 100 rows, got 99"),
        (make_frame().iloc[:0], ("--target", "outcome"), "expected rows, got none"),
    ],
    ids=["no --target", "missing target", "text", "constant", "too few rows", "header only"],
)
def test_bad_table_is_refused(
    tmp_path: Path,
    repository: Path,
    capsys: pytest.CaptureFixture[str],
    frame: pd.DataFrame,
    flags: tuple[str, ...],
    part: str,
) -> None:
    """Exit code 2, one line that says what was expected, no traceback and no bundle."""
    table = write(frame, tmp_path / "rods.csv")
    assert part in refusal(capsys, "fit", table, *flags, "--repository", repository, *SHORT)
    assert [] == files_under(repository)


def test_missing_table_is_refused(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path where nothing is, or a word that is no data set."""
    path = tmp_path / "nowhere.csv"
    message = refusal(capsys, "fit", path, "--target", "y", "--repository", repository)
    assert f"{path}: expected the path of a file, got none there" == message
    assert "digitz: expected one of digits, breast_cancer" in refusal(capsys, "fit", "digitz")


def test_file_name_that_is_no_model_name_is_refused(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file called 'my rods (2).csv' cannot name the model: the message asks for --name, and with it all is well."""
    table = write(make_frame(), tmp_path / "my rods (2).csv")
    arguments = ("fit", table, "--target", "outcome", "--repository", repository, *SHORT)
    message = "'my rods (2)' cannot name a model: expected letters, digits, '.', '_' and '-'; give one by --name"
    assert message == refusal(capsys, *arguments)
    assert message == refusal(capsys, "tune", table, "--target", "outcome", "--repository", repository)
    assert [] == files_under(repository)
    table.write_text("no table at all")
    assert message == refusal(capsys, *arguments)  # before it was read
    write(make_frame(), table)
    assert None is exit_code(*arguments, "--name", "rods")
    assert [1] == bundle.versions(repository, "rods")


def test_divergence_is_told(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training that diverges ends with exit code 2, one line of advice, and no bundle."""
    flags = (
        "--learning-rate",
        "1000",
        "--bound",
        "none",
        "--hidden",
        "8,8",
        "--epochs",
        "5",
        "--compare=none",
        "--no-report",
    )
    message = refusal(capsys, "fit", "breast_cancer", *flags, "--repository", repository)
    assert message.startswith("training diverged in epoch ")
    assert "try a lower --learning-rate than 1000, a --bound, or a lower --degree" in message
    assert [] == files_under(repository)


def test_network_that_explodes_beside_the_training_rows_is_told(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that stays finite, and test rows on which the network overflows: one line of advice, and no bundle."""
    flags = (
        "--learning-rate",
        "1",
        "--bound",
        "none",
        "--hidden",
        "8,8",
        "--epochs",
        "3",
        "--compare=none",
        "--no-report",
    )
    message = refusal(capsys, "fit", "breast_cancer", *flags, "--batch-size", "128", "--repository", repository)
    assert "--bound" in message
    assert [] == files_under(repository)


def test_repository_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A repository that cannot be written into: exit code 2 and a line that names it."""
    (tmp_path / "bundles").write_text("a file")
    message = refusal(capsys, "fit", "breast_cancer", "--repository", tmp_path / "bundles", *SHORT)
    assert str(tmp_path / "bundles") in message


# Runs that are stopped


@contextmanager
def long_run(repository: Path, *further: object) -> Iterator[subprocess.Popen[str]]:
    """A training of many epochs, stopped after its first line of progress."""
    flags = ["--epochs", "4000", "--hidden", "16", "--compare=none", "--no-report", "--repository", str(repository)]
    flags += map(str, further)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # or a run in the background would ignore it
    try:
        run = subprocess.Popen(
            [COMMAND, "fit", "breast_cancer", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with run:
        try:
            assert run.stdout is not None
            assert any("epoch 400/4000" in line for line in run.stdout)
            yield run
        finally:
            run.kill()


def test_killed_run_leaves_no_version(repository: Path) -> None:
    """A run that is killed in the middle leaves nothing that a service would take for a model."""
    with long_run(repository) as run:
        run.kill()
        assert -signal.SIGKILL == run.wait(30)
    assert [] == bundle.versions(repository, "breast_cancer")
    assert not {MODEL_FILE, MANIFEST_FILE} & {path.name for path in repository.rglob("*")}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_interrupted_run_says_so(repository: Path) -> None:
    """Ctrl-C ends a run with exit code 130, one line, no traceback and no bundle."""
    with long_run(repository) as run:
        run.send_signal(signal.SIGINT)
        _, message = run.communicate(timeout=30)
    assert (130, "chainzrule-train: interrupted, no bundle was written\n") == (run.returncode, message)
    assert [] == files_under(repository)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_interrupted_run_with_checkpoints_says_how_it_goes_on(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names --resume; the same command without it is refused, and replaces nothing."""
    states = tmp_path / "states"
    with long_run(repository, "--checkpoints", states) as run:
        run.send_signal(signal.SIGINT)
        _, message = run.communicate(timeout=30)
    assert 130 == run.returncode
    kept = f"{states} holds the state after the last whole epoch, --resume goes on from it"
    assert f"chainzrule-train: interrupted, no bundle was written; {kept}\n" == message
    assert [] == files_under(repository)
    before = (states / "ChainzRule" / "state.pt").read_bytes()
    for command in ("fit", "tune"):
        output = ("--output", tmp_path / "front") if command == "tune" else ()
        refused = refusal(
            capsys, command, "breast_cancer", "--repository", repository, "--checkpoints", states, *output
        )
        assert re.fullmatch(
            rf"--checkpoints: {re.escape(str(states))} holds the state after epoch \d+ of an unfinished training "
            r"\(ChainzRule\); --resume goes on from it; to start anew, name another folder or empty this one",
            refused,
        )
    assert before == (states / "ChainzRule" / "state.pt").read_bytes()


# Settings by column


def test_settings_by_column(tmp_path: Path, repository: Path) -> None:
    """`--missing` and `--units` as often as there are columns; several texts separated by commas."""
    frame = make_frame(150).assign(width=lambda frame: frame["width"].where(frame.index % 5 > 0, -1.0))
    frame["height"] = frame["height"].astype(str).where(frame.index % 7 > 0, "?")
    table = write(frame, tmp_path / "rods.csv")
    flags = ("--missing", "width=-1,0", "--missing", "height=?", "--units", "width=cm", "--units=height=m")
    assert None is exit_code("fit", table, "--target", "outcome", *flags, "--repository", repository, *SHORT)
    width, height = bundle.read(repository / "rods" / "1").manifest.features
    assert (("cm", True), ("m", True)) == ((width.unit, width.missing), (height.unit, height.missing))


@pytest.mark.parametrize("flag", ["--missing", "--units"])
@pytest.mark.parametrize("value", ["width", "=0", '{"width": '])
def test_setting_without_a_column_is_refused(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    """What is no COLUMN=… and no JSON object: one line that begins with the flag."""
    assert refusal(capsys, "fit", "digits", flag, value).startswith(f"{flag}: expected ")


@pytest.mark.parametrize(
    ("value", "rivals"), [("none", ()), ("relu,gelu", ("relu", "gelu")), ("boosting", ("boosting",))]
)
@pytest.mark.parametrize("separate", [True, False])
def test_what_to_compare_with(value: str, rivals: tuple[str, ...], separate: bool) -> None:
    """`--compare relu,gelu` and `--compare=relu,gelu`; 'none' for nothing."""
    flags = ["--compare", value] if separate else [f"--compare={value}"]
    assert rivals == parse(["fit", "digits", *flags]).compare


def test_misspelt_flag_is_put_right(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown flag that is near a known one."""
    message = refusal(capsys, "fit", "digits", "--epoch", "3")
    assert "unrecognized arguments: --epoch 3 (did you mean '--epochs'?)" == message


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("fit", "t.csv", "--folds", "3"), "--folds is a flag of `folds`"),
        (("fit", "t.csv", "--no-fit"), "--no-fit is a flag of `tune`"),
        (("fit", "t.csv", "--output", "here"), "--output is a flag of `tune` and `folds`"),
        (("folds", "t.csv", "--trials", "3"), "--trials is a flag of `tune`"),
        (("fit", "t.csv", "--no-reports"), "did you mean '--no-report'?"),
    ],
)
def test_flag_of_another_command_is_told(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], hint: str
) -> None:
    """Where it belongs; only flags of the command at hand are suggested."""
    assert f"unrecognized arguments: {' '.join(arguments[2:])} ({hint})" == refusal(capsys, *arguments)


def test_only_flags_of_the_command_are_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    """`--jobz` is near a flag of `folds`: `fit` does not offer it."""
    assert "unrecognized arguments: --jobz 3" == refusal(capsys, "fit", "t.csv", "--jobz", "3")
    assert refusal(capsys, "folds", "t.csv", "--jobz", "3").endswith("--jobz 3 (did you mean '--jobs'?)")


def test_every_setting_has_its_heading() -> None:
    """No flag of any command but --config stands under 'options', none under two headings."""
    listed = [field for fields in HEADINGS.values() for field in fields]
    assert len(listed) == len(set(listed))
    known = {field for model in COMMANDS.values() for field in model.model_fields}
    assert known == {*listed, "config", "dataset"}


def test_help_gives_defaults_as_a_user_would_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, lists with commas, nothing where there is none."""
    assert 0 == exit_code("tune", "--help")
    output = capsys.readouterr().out
    squeezed = unwrapped(output)
    for part in ("(default: 64,64)", "(default: relu,gelu,boosting)", "(default: 3)", "(default: yes)", "search:"):
        assert part in squeezed
    assert "None" not in output
    assert "()" not in output
    assert "{}" not in output


# Folds


def test_folds_are_told_of_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a fold with the time left, mean ± deviation of each figure, and all of them as JSON."""
    table, output = write(make_frame(150), tmp_path / "rods.csv"), tmp_path / "figures" / "folds.json"
    flags = ("--folds", "3", "--repeats", "2", "--epochs", "1", "--hidden", "4", "--compare=relu")
    assert None is exit_code("folds", table, "--target", "outcome", *flags, "--output", output)
    printed = capsys.readouterr().out
    assert "repeat 1 fold 1: 1/6 done (" in printed
    assert "repeat 2 fold 3: 6/6 done\n" in printed
    document = json.loads(output.read_text())
    assert 6 == len(document["folds"])
    accuracies = [fold["figures"]["ChainzRule"]["accuracy"] for fold in document["folds"]]
    mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
    assert {"mean": pytest.approx(mean), "deviation": pytest.approx(deviation), "folds": 6} == (
        document["spreads"]["ChainzRule"]["accuracy"]
    )
    assert f"{mean:.4f} ± {deviation:.4f}" in printed
    assert "ReLU network" in printed
    assert [output] == list(output.parent.iterdir())


@pytest.mark.parametrize(("flag", "value"), [("--folds", "1"), ("--repeats", "0"), ("--jobs", "0")])
def test_wrong_flags_of_folds_are_refused(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    """One line that begins with the flag."""
    assert refusal(capsys, "folds", "digits", flag, value).startswith(f"{flag}: ")


def test_output_of_folds_is_checked_before_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder where the file is to be, or a file where its folder is to be."""
    message = refusal(capsys, "folds", "digits", "--output", tmp_path)
    assert f"{tmp_path}: expected a file, got a folder" == message
    (tmp_path / "file").write_text("")
    message = refusal(capsys, "folds", "digits", "--output", tmp_path / "file" / "folds.json")
    assert message.startswith(f"{tmp_path / 'file' / 'folds.json'}: cannot write it")
