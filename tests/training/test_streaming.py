"""A Parquet file that is larger than the memory: the same table, in a file that is mapped into memory."""

import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.training.tables import read, refused
from training.data import source
from training.data.spool import in_file
from training.errors import DataError

SMALL = 1e-9  # GiB: about one byte
LARGE_ROWS, LARGE_COLUMNS = 2_000_000, 32

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def mixed_frame(rows: int = 5_000) -> pd.DataFrame:
    """Numbers, whole numbers with gaps, rare and frequent categories, truth values, a group, and a target."""
    generator = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "width": generator.standard_normal(rows),
            "births": pd.array(generator.integers(0, 9, rows), dtype="Int64"),
            "colour": generator.choice(["red", "green", "blue"], rows),
            "shop": [f"shop {k}" for k in generator.poisson(4, rows)],
            "kept": generator.random(rows) < 0.3,
            "code": [str(k) for k in generator.integers(0, 50, rows)],
            "patient": [f"p{k}" for k in generator.integers(0, 300, rows)],
            "outcome": generator.choice(["no", "yes"], rows),
        }
    )
    frame.loc[generator.random(rows) < 0.1, ["births", "colour"]] = None
    return frame


@pytest.mark.parametrize("row_group", [100, 777, 5_000])
@pytest.mark.parametrize("target", ["outcome", "width"])
def test_streamed_table_is_that_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_group: int, target: str
) -> None:
    """Every value, column, class, group and the digest, however the rows are grouped in the file."""
    mixed_frame().to_parquet(tmp_path / "t.parquet", row_group_size=row_group)
    settings: dict[str, Any] = {"group": "patient", "missing": {"births": ("0",)}, "units": {"births": "children"}}
    expected = read(tmp_path / "t.parquet", target, **settings)
    monkeypatch.setattr(source, "CELLS_AT_ONCE", 2_000)  # several batches
    table = read(tmp_path / "t.parquet", target, memory=SMALL, scratch=tmp_path, **settings)
    assert (False, True) == (isinstance(expected.x, np.memmap), isinstance(table.x, np.memmap))
    np.testing.assert_array_equal(expected.x, table.x)
    np.testing.assert_array_equal(expected.y, table.y)
    np.testing.assert_array_equal(np.asarray(expected.groups), np.asarray(table.groups))
    assert (expected.columns, expected.classes) == (table.columns, table.classes)
    assert (expected.task, expected.sha256()) == (table.task, table.sha256())
    assert 2 <= sum(column.missing for column in table.columns)
    assert any(column.other for column in table.columns)


def test_csv_of_the_same_frame_is_the_same_table(tmp_path: Path) -> None:
    """The format decides nothing: a CSV gives the values that a streamed Parquet file gives."""
    frame = mixed_frame(1_000)
    frame["width"] = frame["width"].astype(np.float32).astype(np.float64)
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    expected = read(tmp_path / "t.csv", drop=("patient",))
    table = read(tmp_path / "t.parquet", drop=("patient",), memory=SMALL, scratch=tmp_path)
    assert (expected.columns, expected.sha256()) == (table.columns, table.sha256())


@pytest.mark.parametrize("memory", [SMALL, 1.0])
def test_the_same_messages_from_a_streamed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: float) -> None:
    """A row is counted from the start of the table, not of the batch that it came in."""
    frame = mixed_frame().astype({"width": "object"}).assign(width=lambda frame: frame["width"].astype(str))
    frame.loc[4_321, "width"] = "wide"
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=500)
    monkeypatch.setattr(source, "CELLS_AT_ONCE", 2_000)
    message = refused(tmp_path / "t.parquet", memory=memory, scratch=tmp_path)
    assert message.startswith("column 'width': expected numbers, got 'wide' in row 4322; ")


def test_a_map_is_taken_by_torch_without_a_warning(tmp_path: Path) -> None:
    """`torch.from_numpy` shares its memory: the map may be written to, as torch requires."""
    mixed_frame().to_parquet(tmp_path / "t.parquet")
    table = read(tmp_path / "t.parquet", memory=SMALL, scratch=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = torch.from_numpy(table.x)
    assert table.x.ctypes.data == tensor.data_ptr()
    np.testing.assert_array_equal(table.x[[4_999, 0, 17]], tensor[[4_999, 0, 17]].numpy())


@on_linux
def test_the_file_has_no_name_that_could_be_left_behind(tmp_path: Path) -> None:
    """Nothing is to be seen in the folder while the table lives: a kill leaves nothing either."""
    mixed_frame().to_parquet(tmp_path / "t.parquet")
    (tmp_path / "scratch").mkdir()
    table = read(tmp_path / "t.parquet", memory=SMALL, scratch=tmp_path / "scratch")
    assert isinstance(table.x, np.memmap)
    assert [] == list((tmp_path / "scratch").iterdir())


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The message names the folder, what was to be put there, and the flags."""
    mixed_frame().to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "t.parquet", memory=SMALL, scratch=tmp_path / "nowhere")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'nowhere'}: expected room for 0.0 GiB of the table, got: No such file")
    assert message.endswith("; give another folder by --scratch, or raise --memory")


@on_linux
def test_a_full_disk_is_refused(tmp_path: Path) -> None:
    """A file that may grow no further gives a DataError, not a signal that ends the process."""
    script = """
        import resource, signal, sys
        import numpy as np
        from pathlib import Path
        from training.data.spool import in_file
        from training.errors import DataError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        pieces = (np.zeros((1_000, 8), np.float32) for _ in range(10))
        try:
            in_file(pieces, (10_000, 8), Path(sys.argv[1]))
        except DataError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert f"{tmp_path}: expected room for 0.0 GiB of the table, got: File too large" in done.stdout


def test_pieces_of_any_layout_are_written_row_by_row(tmp_path: Path) -> None:
    """A piece whose columns lie one after the other in memory is written by rows all the same."""
    x = np.arange(60, dtype=np.float32).reshape(12, 5)
    written = in_file((np.asfortranarray(x[start : start + 5]) for start in (0, 5, 10)), x.shape, tmp_path)
    np.testing.assert_array_equal(x, written)


@on_linux
def test_memory_is_bounded(tmp_path: Path) -> None:
    """A table of 244 MiB, one row group: less anonymous memory than that is taken at any time, and far less is kept."""
    generator = np.random.default_rng(0)
    column = pa.array(generator.integers(0, 100, LARGE_ROWS).astype(np.float32))
    columns = {f"f{k}": column for k in range(LARGE_COLUMNS)} | {"outcome": pa.array(np.arange(LARGE_ROWS) % 2)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=LARGE_ROWS)
    script = """
        import sys, threading
        from pathlib import Path
        from training.config import FitConfig
        from training.data.load import load

        def anonymous():
            status = Path("/proc/self/status").read_text()
            return int(status.split("RssAnon:")[1].split()[0]) * 1024

        seen, done = [], threading.Event()
        def watch():
            while not done.wait(0.005):
                seen.append(anonymous())

        before = anonymous()
        watcher = threading.Thread(target=watch)
        watcher.start()
        path, folder = sys.argv[1:]
        table = load(FitConfig(dataset=path, target="outcome", memory=0.01, scratch=Path(folder)))
        table.sha256()
        done.set()
        watcher.join()
        print(table.x.nbytes, max(seen) - before, anonymous() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "t.parquet"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    size, peak, kept = map(int, done.stdout.split())
    assert 4 * LARGE_ROWS * LARGE_COLUMNS == size
    assert peak < size
    assert kept < size / 2
