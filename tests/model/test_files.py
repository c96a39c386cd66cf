"""Files are written whole or not at all; a probe of a folder writes for real and leaves nothing."""

import errno
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.files import in_folder, probe, write_whole

ROOT = Path(__file__).parents[2]


def everything(folder: Path) -> list[Path]:
    """All that lies in a folder and below."""
    return sorted(folder.rglob("*"))


def pieces_that_fail() -> Iterator[bytes]:
    """Some content, then an error of the one who makes it."""
    yield b"half"
    raise ArithmeticError("no more")


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    """Of bytes or of pieces, readable by all; the count is of its bytes, and nothing lies beside it."""
    path = tmp_path / "a" / "b" / "file.json"
    assert 3 == write_whole(path, b"abc")
    assert b"abc" == path.read_bytes()
    assert 5 == write_whole(path, iter((b"de", b"", b"fgh")))
    assert b"defgh" == path.read_bytes()
    assert 0o644 == path.stat().st_mode & 0o777
    assert [path] == list(path.parent.iterdir())


@pytest.mark.parametrize("temporary", [None, "named.tmp"])
def test_a_failure_keeps_the_old_file(tmp_path: Path, temporary: str | None) -> None:
    """Where the content cannot be made to the end, the file is as it was and nothing is left beside it."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ArithmeticError, match="no more"):
        write_whole(path, pieces_that_fail(), temporary=None if temporary is None else tmp_path / temporary)
    assert [path] == everything(tmp_path)
    assert b"old" == path.read_bytes()


def test_a_named_temporary_takes_the_place_of_what_a_kill_left(tmp_path: Path) -> None:
    """Half a file of an earlier writer is gone once the next has written."""
    path, beside = tmp_path / "file", tmp_path / "file.tmp"
    beside.write_bytes(b"half of something that was longer")
    write_whole(path, b"whole", temporary=beside)
    assert [path] == everything(tmp_path)
    assert b"whole" == path.read_bytes()


def test_a_probe_leaves_no_trace(tmp_path: Path) -> None:
    """Neither of folders that were not there, nor in those that were."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("kept")
    before = everything(tmp_path)
    for folder in (tmp_path / "there", tmp_path / "there" / "new", tmp_path / "a" / "b" / "c"):
        probe(folder)
        assert before == everything(tmp_path)


@pytest.mark.parametrize("folder", ["file/folder", "file", "dangling", "dangling/folder"])
def test_a_folder_that_cannot_be_made_fails(tmp_path: Path, folder: str) -> None:
    """A file is in its way, or a link that leads nowhere, which permissions say nothing of."""
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = everything(tmp_path)
    with pytest.raises(OSError, match=str(tmp_path)):
        probe(tmp_path / folder)
    assert before == everything(tmp_path)


def test_a_disk_that_takes_nothing_is_noticed(tmp_path: Path) -> None:
    """Where permissions say yes, and not a byte can be written: the limit of a process stands for a full disk."""
    program = (
        "import os, resource, sys; from pathlib import Path; from model.files import probe\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); folder = Path(sys.argv[1])\n"
        "assert os.access(folder.parent, os.W_OK)\n"
        "try: probe(folder)\n"
        "except OSError as error: sys.exit(error.errno)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "new")], cwd=ROOT, check=False)
    assert errno.EFBIG == ended.returncode
    assert [] == everything(tmp_path)


def test_writers_and_probes_of_a_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    """While one thread makes and removes a folder over and over, each write into it succeeds."""
    folder, done = tmp_path / "a" / "b", threading.Event()
    failures: list[OSError] = []

    def keep_probing() -> None:
        while not done.is_set():
            try:
                probe(folder)
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=keep_probing) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(200):
        path = folder / f"{number}"
        write_whole(path, b"x")
        path.unlink()
    done.set()
    for thread in threads:
        thread.join()
    assert [] == failures
    assert [] == [path for path in everything(tmp_path) if path.is_file()]


def test_what_is_missing_for_another_reason_is_told(tmp_path: Path) -> None:
    """A file that the maker itself lacks ends in its own error, after a while."""
    with pytest.raises(FileNotFoundError, match="absent"):
        in_folder(tmp_path / "folder", (tmp_path / "absent").read_bytes)
