"""Settings from a TOML file: names, tables by column, what flags win over, and what is refused."""

from pathlib import Path

import pytest

from training.commands.parser import parse
from training.commands.settings import FitCommand, TuneCommand
from training.errors import SettingsError
from training.settings_file import read_settings

FILE = """
dataset = "people.csv"
target = "outcome"
hidden = [32, 16]
dreg-weight = 0.3
batch_size = 128
report = false
compare = "relu"
bound = "none"

[missing]
insulin = 0
bmi = [0, "?"]

[units]
age = "years"
bmi = "kg/m²"
"""


def write(folder: Path, text: str) -> Path:
    """A file of settings."""
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_file_names_what_flags_name(tmp_path: Path) -> None:
    """Snake and kebab case, lists and single values, tables by column; the data set too."""
    command = parse(["fit", "--config", str(write(tmp_path, FILE))])
    assert {
        "config": tmp_path / "run.toml",
        "dataset": "people.csv",
        "target": "outcome",
        "hidden": (32, 16),
        "dreg_weight": 0.3,
        "batch_size": 128,
        "report": False,
        "compare": ("relu",),
        "bound": None,
        "missing": {"insulin": ("0",), "bmi": ("0", "?")},
        "units": {"age": "years", "bmi": "kg/m²"},
    } == command.model_dump(exclude_unset=True)


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    """A flag replaces what the file says; of tables by column, of its column alone."""
    flags = ["--hidden", "8", "--report", "--missing", "bmi=9", "--units", "weight=kg"]
    command = parse(["fit", "pima", "--config", str(write(tmp_path, FILE)), *flags])
    assert ("pima", (8,), True, 128) == (command.dataset, command.hidden, command.report, command.batch_size)
    assert {"insulin": ("0",), "bmi": ("9",)} == command.missing
    assert {"age": "years", "bmi": "kg/m²", "weight": "kg"} == command.units


def test_dotted_names_are_tables(tmp_path: Path) -> None:
    """TOML's dotted keys say the same as a table."""
    path = write(tmp_path, 'missing.insulin = "0"\nunits.age = "years"\n')
    assert {"missing": {"insulin": "0"}, "units": {"age": "years"}} == read_settings(path, FitCommand)


def test_each_command_has_its_settings(tmp_path: Path) -> None:
    """`trials` is of tune and no setting of fit."""
    path = write(tmp_path, 'dataset = "digits"\ntrials = 7\nweight-range = [0.01, 1]\n')
    command = parse(["tune", "--config", str(path)])
    assert isinstance(command, TuneCommand)
    assert (7, (0.01, 1.0)) == (command.trials, command.weight_range)
    with pytest.raises(SettingsError, match="expected names of settings, got 'trials'"):
        parse(["fit", "--config", str(path)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "{path}: expected names of settings, got 'epoch' (did you mean 'epochs'?)"),
        ("learning-rat = 1", "{path}: expected names of settings, got 'learning-rat' (did you mean 'learning_rate'?)"),
        ("dreg-weight = 1\ndreg_weight = 2", "{path}: expected each setting once, got 'dreg_weight' in two spellings"),
        ("epochs = = 3", "{path}: expected TOML: Invalid value (at line 1, column 10)"),
        ("missing = 0", "{path}: missing: expected a table of columns, [missing], got 0"),
        ("[hidden]\nfirst = 8", "{path}: hidden: expected no table, got {{'first': 8}}"),
        ('config = "other.toml"', "{path}: expected the settings themselves, got 'config', another file"),
        ("epochs = 0", "{path}: epochs: expected a number of at least 1, got 0"),
        ("[units]\nage = 3", "{path}: units: column 'age': expected a text, got 3"),
    ],
    ids=["unknown", "kebab", "twice", "no TOML", "no table", "a table", "another file", "value", "unit"],
)
def test_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """One message that names the file, what was expected and what came."""
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        parse(["fit", "digits", "--config", str(path)])
    assert message.format(path=path) == str(caught.value)


def test_wrong_flag_beside_a_file_is_called_by_its_flag(tmp_path: Path) -> None:
    """Of a value that a flag gave, the message names the flag; of one that the file gave, the file."""
    path = write(tmp_path, "epochs = 3\ndegree = 0\n")
    with pytest.raises(SettingsError) as caught:
        parse(["fit", "digits", "--config", str(path), "--epochs", "0"])
    degree, epochs = str(caught.value).splitlines()
    assert degree.startswith(f"{path}: degree: ")
    assert epochs.startswith("--epochs: ")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """A path where nothing is, or a folder."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml: expected a file of settings: No such file or directory"):
        parse(["fit", "digits", "--config", str(tmp_path / "nowhere.toml")])
    with pytest.raises(SettingsError, match="expected a file of settings: Is a directory"):
        parse(["fit", "digits", "--config", str(tmp_path)])


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are no UTF-8."""
    path = tmp_path / "run.toml"
    path.write_bytes(b"name = \xff\xfe")
    with pytest.raises(SettingsError, match=r"run\.toml: expected TOML: "):
        read_settings(path, FitCommand)
