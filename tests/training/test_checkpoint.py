"""The state on disk: that a killed training ends as an unbroken one, and that no other state is taken for it."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model.errors import BundleError
from model.outputs import Task
from tests.training.interrupted import make_task, train
from tests.training.tables import make_config, make_table
from training.checkpoint import FILE, Checkpoint, check_unused, discard
from training.errors import DataError, DivergenceError
from training.pipeline import train as run

ROOT = Path(__file__).parents[2]


def run_and_kill(folder: Path, after_epoch: int, wait: float) -> None:
    """Start or resume a training in a process of its own; kill it some time after it has told of an epoch."""
    command = [sys.executable, "-m", "tests.training.interrupted", str(folder), "resume"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch") and int(line.split()[1]) >= after_epoch:
                time.sleep(wait)
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.read()
    assert -signal.SIGKILL == process.returncode


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the state of a short training that has ended."""
    folder = tmp_path_factory.mktemp("kept")
    train(*make_task(checkpoints=folder, epochs=2))
    return folder


def test_killed_and_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Killed by SIGKILL at several moments, a training goes on to the very weights of one that was left alone.

    It uses all that has a state: momentum, the order of the rows, drawn directions, early stopping, a held λ.
    """
    expected = train(*make_task())
    moments = random.Random(5)
    for after_epoch in (1, 4, 9):
        run_and_kill(tmp_path, after_epoch, moments.uniform(0, 0.03))
    assert expected == train(*make_task(checkpoints=tmp_path, resume=True))


def test_a_finished_training_is_resumed_as_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is trained again, and the weights are those of the best epoch, as at its end."""
    ended = train(*make_task(checkpoints=tmp_path))
    capsys.readouterr()
    assert ended == train(*make_task(checkpoints=tmp_path, resume=True))
    assert "" == capsys.readouterr().out


def test_resume_without_a_state_starts(tmp_path: Path) -> None:
    """The first run of a command with --resume is an ordinary one."""
    assert train(*make_task(epochs=2)) == train(*make_task(epochs=2, checkpoints=tmp_path / "new", resume=True))


def test_without_resume_a_state_is_refused(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says how far it got and what to do; nothing is trained, the state stays, nobody is locked out."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "ChainzRule" / FILE
    before = file.read_bytes()
    capsys.readouterr()
    expected = (
        f"--checkpoints: {tmp_path} holds the state after epoch 2 of an unfinished training (ChainzRule); --resume "
        "goes on from it; to start anew, name another folder or empty this one"
    )
    for _ in range(2):
        with pytest.raises(DataError, match=re.escape(expected)):
            train(*make_task(epochs=2, seed=1, checkpoints=tmp_path))
    assert "" == capsys.readouterr().out
    assert before == file.read_bytes()
    discard(tmp_path, ["ChainzRule"])
    assert 2 == train(*make_task(epochs=2, seed=1, checkpoints=tmp_path))[1]


def test_without_resume_a_damaged_state_is_refused(kept: Path, tmp_path: Path) -> None:
    """It may be all that is left of a long run: whoever wants to start anew removes it."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "ChainzRule" / FILE
    file.write_bytes(b"half")
    with pytest.raises(DataError, match=f"{file}: expected the state of a training, .* remove it to start anew"):
        train(*make_task(epochs=2, checkpoints=tmp_path))
    assert b"half" == file.read_bytes()


def test_a_folder_is_refused_for_any_network_in_it(kept: Path, tmp_path: Path) -> None:
    """Before anything is trained: a run was killed while it trained what it compares with, maybe after hours."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ChainzRule").rename(tmp_path / "GELU network")
    with pytest.raises(DataError, match=r"the state after epoch 2 of an unfinished training \(GELU network\)"):
        check_unused(tmp_path, resume=False)
    check_unused(tmp_path, resume=True)
    for free in (None, tmp_path / "absent"):
        check_unused(free, resume=False)
    discard(tmp_path, ["ChainzRule", "ReLU network"])
    with pytest.raises(DataError, match="GELU network"):
        check_unused(tmp_path, resume=False)
    discard(tmp_path, ["GELU network"])
    check_unused(tmp_path, resume=False)


def test_a_refused_resume_lets_the_folder_go(kept: Path, tmp_path: Path) -> None:
    """Whoever corrects the setting in the same process may go on, though the error is still at hand."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    with pytest.raises(DataError, match="--learning-rate to be") as caught:
        train(*make_task(epochs=2, checkpoints=tmp_path, resume=True, learning_rate=0.02))
    assert 2 == train(*make_task(epochs=2, checkpoints=tmp_path, resume=True))[1]
    assert caught.value.__traceback__ is not None


def test_a_run_leaves_no_state_once_its_bundle_is_written(tmp_path: Path) -> None:
    """Neither of the network nor of those that it is compared with; so that the next run may have the folder."""
    states = tmp_path / "states"
    table = make_table(Task.CLASSIFICATION, rows=200)
    config = make_config(
        epochs=1, checkpoints=states, repository=tmp_path / "bundles", report=False, compare=("relu",), hidden=(4,)
    )
    seen: set[str] = set()

    def look(network: str, epoch: object) -> None:
        seen.update(path.parent.name for path in states.glob(f"*/{FILE}"))

    for version in (1, 2):
        assert version == run(config, table, look).manifest.version
        assert {"ChainzRule", "ReLU network"} == seen
        assert [] == list(states.glob(f"*/{FILE}*"))


def test_a_run_that_fails_keeps_its_states(tmp_path: Path) -> None:
    """Until there is a bundle: what only its writing failed of is resumed without training again."""
    states, repository = tmp_path / "states", tmp_path / "bundles"
    table, settings = make_table(Task.CLASSIFICATION, rows=200), {"epochs": 2, "report": False, "compare": ()}
    config = make_config(checkpoints=states, repository=repository, hidden=(4,), **settings)

    def obstruct(network: str, epoch: object) -> None:
        if not repository.exists():
            repository.write_text("in the way")

    with pytest.raises(BundleError, match="cannot write a bundle"):
        run(config, table, obstruct)
    repository.unlink()
    told: list[object] = []
    result = run(config.model_copy(update={"resume": True}), table, lambda network, epoch: told.append(epoch))
    assert ([], 2, 1) == (told, result.manifest.provenance.epochs, result.manifest.version)
    assert [] == list(states.glob(f"*/{FILE}"))


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"learning_rate": 0.02}, "--learning-rate to be 0.01, as in the checkpoint, got 0.02"),
        ({"epochs": 3}, "--epochs to be 2, as in the checkpoint, got 3"),
        ({"dreg": "local"}, "--dreg to be projected, as in the checkpoint, got local"),
        ({"hidden": (9,)}, r"--hidden to be \[8\], as in the checkpoint, got \[9\]"),
        ({"patience": None}, "--patience to be 6, as in the checkpoint, got None"),
        ({"class_weight": "none"}, "--class-weight to be balanced, as in the checkpoint, got none"),
        ({"validation_share": 0.3}, "the SHA-256 of the split to be"),
    ],
)
def test_a_state_of_other_settings_is_refused(kept: Path, settings: dict[str, object], difference: str) -> None:
    """The message names the setting, and what it was and is."""
    with pytest.raises(DataError, match=difference):
        train(*make_task(**{"epochs": 2, "checkpoints": kept, "resume": True} | settings))


def test_a_state_of_other_data_is_refused(kept: Path) -> None:
    """Even one value that differs makes another table."""
    _, config = make_task(epochs=2, checkpoints=kept, resume=True)
    table = make_table(Task.ORDINAL, rows=400)
    table.x[7, 0] += 1
    with pytest.raises(DataError, match="the SHA-256 of the table to be"):
        train(table, config)


def test_settings_that_change_nothing_may_differ(kept: Path) -> None:
    """The name of the model, its repository or what else is trained do not bind the state."""
    given = {"name": "other", "repository": kept / "r", "compare": ("relu",), "temperature": False, "data": kept}
    assert 2 == train(*make_task(epochs=2, checkpoints=kept, resume=True, **given))[1]


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "text", "torch"])
def test_a_damaged_or_foreign_file_is_refused(kept: Path, tmp_path: Path, damage: str) -> None:
    """Whatever lies in the state's place is read as a whole state or not at all; the message names the file."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "ChainzRule" / FILE
    content = bytearray(file.read_bytes())
    match damage:
        case "empty":
            file.write_bytes(b"")
        case "short":
            file.write_bytes(content[: len(content) // 2])
        case "flipped":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        case "text":
            file.write_text("not a state\n" * 100)
        case _:
            torch.save({"weights": torch.zeros(3)}, file)
    with pytest.raises(DataError, match=f"{file}: expected the state of a training, got a damaged or foreign file"):
        train(*make_task(epochs=2, checkpoints=tmp_path, resume=True))


def test_what_a_kill_leaves_half_written_is_no_state(kept: Path, tmp_path: Path) -> None:
    """A state is written beside its place: half of one there disturbs neither reading nor writing."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    half = tmp_path / "ChainzRule" / "state.tmp"
    half.write_bytes(b"half")
    assert train(*make_task(epochs=2)) == train(*make_task(epochs=2, checkpoints=tmp_path, resume=True))
    discard(tmp_path, ["ChainzRule"])
    train(*make_task(epochs=2, checkpoints=tmp_path))
    assert not half.exists()


def test_a_folder_that_cannot_be_is_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the folder's place is an error at the start, not after the first epoch."""
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="--checkpoints: expected a folder to write into, got"):
        train(*make_task(checkpoints=tmp_path / "file"))
    assert "" == capsys.readouterr().out


def test_a_state_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The message names the file."""
    checkpoint = Checkpoint(tmp_path, "ChainzRule", {})
    (tmp_path / "ChainzRule").rmdir()
    with pytest.raises(DataError, match=rf"{checkpoint.path}: cannot be written"):
        checkpoint.write({})


def test_divergence_names_the_last_good_state(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The state after the last whole epoch stays; the message says where, and of which epoch it is."""
    steep = {"bound": None, "degree": 5, "dreg": "local", "learning_rate": 30.0, "dreg_target": None}
    table, config = make_task(checkpoints=tmp_path, **steep)
    with pytest.raises(DivergenceError) as caught:
        train(table, config)
    whole = len(capsys.readouterr().out.splitlines())
    assert whole >= 1
    file = tmp_path / "ChainzRule" / FILE
    assert str(caught.value).endswith(f"; the state after epoch {whole} is kept in {file}")
    assert file.exists()


def test_two_trainings_do_not_share_a_folder(kept: Path, tmp_path: Path) -> None:
    """While one training writes into a folder, another is refused before it begins; afterwards it may."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    other = Checkpoint(tmp_path, "ChainzRule", {})
    other.hold(resume=True)
    with pytest.raises(DataError, match="--checkpoints: expected a folder that no other training writes into"):
        train(*make_task(checkpoints=tmp_path, epochs=2))
    other.release()
    train(*make_task(checkpoints=tmp_path, epochs=2, resume=True))
