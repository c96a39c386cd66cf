"""The processes of a training live and die with the one that started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


def test_processes_end_with_their_parent(tmp_path: Path) -> None:
    """Killed by SIGKILL in the midst of a training, the parent leaves no process behind that trains on."""
    settings = ("devices=2", "epochs=100000", "patience=null", "dreg_target=null")
    command = [sys.executable, "-m", "tests.training.interrupted", str(tmp_path), "start", *settings]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert "epoch 1\n" == parent.stdout.readline()
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        os.kill(parent.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=20)
    assert [] == alive


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """A main module that starts processes when it is imported ends with one message, not with processes without end."""
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.training.interrupted import make_task, train\ntrain(*make_task(devices=2, dreg_target=None))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert 1 == done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("training.errors.TrainingError: --devices: process ")
    assert last.endswith("must be safe to import: if __name__ == '__main__'")
