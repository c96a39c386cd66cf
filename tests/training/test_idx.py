"""IDX files: small ones written in the published format, and the real ones where they are at hand."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model.outputs import Task
from training.config import FitConfig
from training.data.idx import images, read_idx
from training.data.load import load
from training.errors import DataError

DATA = os.environ.get("CHAINZRULE_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="the folder with mnist/ and fashion-mnist/: set CHAINZRULE_DATA")

SHA256_OF_RAW_MNIST = {  # as the data folder's README gives them
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
TRAINING_ROWS, TEST_ROWS = 30, 12

Bytes = NDArray[np.uint8]


def to_idx(array: Bytes, type_code: int = 8) -> bytes:
    """The published format: two zeros, type, number of axes; each size as a big-endian 32-bit number; the bytes."""
    return bytes((0, 0, type_code, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def random_images(rows: int, seed: int) -> Bytes:
    """Random images of 28 × 28 pixels: [rows, 28, 28]."""
    return np.random.default_rng(seed).integers(0, 256, (rows, 28, 28), np.uint8)


def write_gz(path: Path, array: Bytes) -> None:
    """Write a gzipped IDX file."""
    path.write_bytes(gzip.compress(to_idx(array), compresslevel=1))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a small `mnist/` of 30 training and 12 test images."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, rows, seed in (("train", TRAINING_ROWS, 0), ("t10k", TEST_ROWS, 1)):
        write_gz(folder / f"{part}-images-idx3-ubyte.gz", random_images(rows, seed))
        write_gz(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(rows, dtype=np.uint8) % 10)
    return tmp_path


@settings(deadline=None, derandomize=True)
@given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6)), zipped=st.booleans()
)
def test_reads_what_was_written(array: Bytes, zipped: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any array of bytes comes back with its shape, from a plain and from a gzipped file."""
    path = tmp_path_factory.getbasetemp() / ("array.gz" if zipped else "array-idx-ubyte")
    path.write_bytes(gzip.compress(to_idx(array)) if zipped else to_idx(array))
    read = read_idx(path)
    assert array.shape == read.shape
    np.testing.assert_array_equal(array, read)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\x89PNG\r\n\x1a\n", b"\0\1\x08\1\0\0\0\1a", b"1,2,3\n4,5,6\n"],
    ids=["empty", "short", "png", "second byte", "csv"],
)
def test_wrong_magic_number_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that does not begin as IDX does is refused; the message names it and shows its first bytes."""
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(content)
    message = rf"labels-idx1-ubyte: expected an IDX file of unsigned bytes, got the magic number {content[:4].hex()}$"
    with pytest.raises(DataError, match=message):
        read_idx(path)


@pytest.mark.parametrize("type_code", [0x09, 0x0B, 0x0C, 0x0D, 0x0E])
def test_other_types_of_number_are_refused(tmp_path: Path, type_code: int) -> None:
    """An IDX file of signed bytes, integers or floats is none of unsigned bytes."""
    path = tmp_path / "images-idx2"
    path.write_bytes(to_idx(np.zeros((2, 2), np.uint8), type_code))
    with pytest.raises(
        DataError, match=rf"expected an IDX file of unsigned bytes, got the magic number 0000{type_code:02x}02"
    ):
        read_idx(path)


@pytest.mark.parametrize(("cut", "got"), [(1, 11), (12, 0), (13, 0), (20, 0)])
def test_truncated_body_is_refused(tmp_path: Path, cut: int, got: int) -> None:
    """A file that ends within its body, or within its sizes, is refused."""
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(to_idx(np.ones((3, 2, 2), np.uint8))[:-cut])
    with pytest.raises(DataError, match=rf"images-idx3-ubyte: expected .* bytes for the shape .*, got {got}$"):
        read_idx(path)


def test_trailing_bytes_are_refused(tmp_path: Path) -> None:
    """A file that is longer than its sizes say is refused: 12 bytes expected, 13 found."""
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(to_idx(np.ones((3, 2, 2), np.uint8)) + b"x")
    with pytest.raises(DataError, match=r"expected 12 bytes for the shape \(3, 2, 2\), got 13$"):
        read_idx(path)


def test_sizes_beyond_any_file_are_refused(tmp_path: Path) -> None:
    """Sizes whose product is 2⁶⁴, which is 0 in 64 bits, do not pass for an empty body."""
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**22, 2**21, 2**21))
    with pytest.raises(DataError, match="images-idx3-ubyte: expected"):
        read_idx(path)


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_truncated_gzip_is_refused(tmp_path: Path, kept: float) -> None:
    """A download that broke off is refused by name."""
    content = gzip.compress(to_idx(random_images(5, seed=2)))
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(DataError, match=r"images-idx3-ubyte\.gz: cannot read it"):
        read_idx(path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    """A byte that is damaged gives a DataError, wherever it is; or, in a free field of the header, the right array."""
    array = np.arange(64, dtype=np.uint8).reshape(8, 8)
    content = gzip.compress(to_idx(array), mtime=0)
    path = tmp_path / "images-idx2-ubyte.gz"
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            read = read_idx(path)
        except DataError:
            continue
        np.testing.assert_array_equal(array, read)


def test_plain_file_with_a_gz_ending_is_refused(tmp_path: Path) -> None:
    """The ending says gzip, the content is not."""
    path = tmp_path / "labels-idx1-ubyte.gz"
    path.write_bytes(to_idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match=r"labels-idx1-ubyte\.gz: cannot read it"):
        read_idx(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """The message names the file that is not there."""
    with pytest.raises(DataError, match=r"nowhere-idx1-ubyte\.gz: cannot read it"):
        read_idx(tmp_path / "nowhere-idx1-ubyte.gz")


def test_images_from_a_folder(data: Path) -> None:
    """Training images come first, test images last; pixels and labels are as they were written."""
    table = images("mnist", data)
    pixels = np.concatenate((random_images(TRAINING_ROWS, 0), random_images(TEST_ROWS, 1))).reshape(-1, 784)
    np.testing.assert_array_equal(pixels.astype(np.float32), table.x)
    assert [*(k % 10 for k in range(TRAINING_ROWS)), *(k % 10 for k in range(TEST_ROWS))] == table.y.tolist()
    assert (np.dtype(np.float32), np.dtype(np.int64)) == (table.x.dtype, table.y.dtype)
    assert (TEST_ROWS, Task.CLASSIFICATION, "digit") == (table.test_rows, table.task, table.target)
    assert ("pixel_0_0", "pixel_0_27", "pixel_1_0", "pixel_27_27") == tuple(table.features[k] for k in (0, 27, 28, 783))
    assert ("grey level of 0 to 255", (0.0, 255.0)) == (table.common_unit, table.common_range)


def test_folder_may_be_given_by_setting_or_environment(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--data` wins over CHAINZRULE_DATA, which serves where it is left out."""
    expected = images("mnist", data).sha256()
    monkeypatch.setenv("CHAINZRULE_DATA", str(data))
    assert expected == load(FitConfig(dataset="mnist")).sha256()
    monkeypatch.setenv("CHAINZRULE_DATA", str(data / "nowhere"))
    assert expected == load(FitConfig(dataset="mnist", data=data)).sha256()


def test_missing_folder_is_refused(data: Path) -> None:
    """A folder that was named must hold the data set: the message names it, and nothing is fetched instead."""
    with pytest.raises(
        DataError, match=r"fashion-mnist: expected a folder with the IDX files of fashion-mnist, got none"
    ):
        load(FitConfig(dataset="fashion-mnist", data=data))


def test_plain_files_are_read_too(data: Path) -> None:
    """The files may be unpacked: the table is the same."""
    expected = images("mnist", data)
    for path in (data / "mnist").glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert expected.sha256() == images("mnist", data).sha256()


@pytest.mark.parametrize("file", [f"{name}.gz" for name in SHA256_OF_RAW_MNIST])
def test_folder_with_a_missing_file_is_refused(data: Path, file: str) -> None:
    """Each of the four files is needed, and named where it is not there."""
    (data / "mnist" / file).unlink()
    with pytest.raises(DataError, match=f"{file}: cannot read it"):
        images("mnist", data)


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("train-labels-idx1-ubyte.gz", np.zeros(29, np.uint8), r"train images .* got \(30, 28, 28\) and \(29,\)"),
        ("t10k-images-idx3-ubyte.gz", random_images(13, 2), r"t10k images .* got \(13, 28, 28\) and \(12,\)"),
        ("t10k-images-idx3-ubyte.gz", np.zeros((12, 8, 8), np.uint8), r"t10k images .* got \(12, 8, 8\) and \(12,\)"),
        ("train-images-idx3-ubyte.gz", np.zeros(30, np.uint8), r"train images .* got \(30,\) and \(30,\)"),
        ("train-labels-idx1-ubyte.gz", random_images(30, 3), r"train images .* got \(30, 28, 28\) and \(30, 28, 28\)"),
    ],
    ids=["a label too few", "an image too many", "other size", "labels as images", "images as labels"],
)
def test_images_and_labels_must_fit(data: Path, file: str, array: Bytes, message: str) -> None:
    """Images of 28 × 28 with one label each, or a message that gives both shapes."""
    write_gz(data / "mnist" / file, array)
    with pytest.raises(DataError, match=message):
        images("mnist", data)


def test_label_that_names_no_class_is_refused(data: Path) -> None:
    """Labels are 0 to 9: a file with another one is none of this data set."""
    labels = np.zeros(TRAINING_ROWS, np.uint8)
    labels[7] = 10
    write_gz(data / "mnist" / "train-labels-idx1-ubyte.gz", labels)
    with pytest.raises(DataError, match="10"):
        images("mnist", data)


@needs_data
@pytest.mark.parametrize(("file", "digest"), SHA256_OF_RAW_MNIST.items())
def test_real_mnist_is_the_published_one(file: str, digest: str) -> None:
    """The raw bytes have the published digest, and writing what was read gives them back."""
    assert DATA is not None
    path = Path(DATA) / "mnist" / f"{file}.gz"
    raw = gzip.decompress(path.read_bytes())
    assert digest == hashlib.sha256(raw).hexdigest()
    assert raw == to_idx(read_idx(path))


@needs_data
@pytest.mark.parametrize(
    ("name", "target", "first_labels"), [("mnist", "digit", (5, 0, 4)), ("fashion-mnist", "article", (9, 0, 0))]
)
def test_real_tables(name: str, target: str, first_labels: tuple[int, ...]) -> None:
    """60,000 training and 10,000 test images of 784 pixels, from 0 to 255, in ten classes."""
    table = images(name, Path(DATA or ""))
    assert ((70_000, 784), (70_000,), 10_000) == (table.x.shape, table.y.shape, table.test_rows)
    assert (0.0, 255.0) == (table.x.min(), table.x.max())
    assert (target, 10, 10) == (table.target, len(table.classes), len(set(table.y.tolist())))
    assert first_labels == tuple(table.y[:3].tolist())
