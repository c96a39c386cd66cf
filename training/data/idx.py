"""MNIST and Fashion-MNIST: the published IDX files from a folder, or the same images from OpenML.

An IDX file is a magic number (0, 0, 8 for unsigned bytes, number of axes), one big-endian 32-bit size an axis, and
the bytes in row-major order (yann.lecun.com/exdb/mnist).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.outputs import Task
from training.data import openml
from training.data.table import Column, Table
from training.errors import DataError

UNSIGNED_BYTE = 8
OPENML = {"mnist": "mnist_784", "fashion-mnist": "Fashion-MNIST"}
CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
SIDE = 28
TEST_ROWS = 10_000


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped or plain IDX file of unsigned bytes; raises DataError if it is not one, or is cut short."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot read it: {error}") from error
    if len(content) < 4 or content[:3] != bytes((0, 0, UNSIGNED_BYTE)):
        raise DataError(f"{path}: expected an IDX file of unsigned bytes, got the magic number {content[:4].hex()}")
    axes = content[3]
    start = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", content[4:start]) if len(content) >= start else ()
    expected = math.prod(shape)
    if not shape or len(content) - start != expected:
        raise DataError(f"{path}: expected {expected} bytes for the shape {shape}, got {max(len(content) - start, 0)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _gzipped_or_plain(path: Path) -> Path:
    return path if path.exists() else path.with_name(path.name + ".gz")


def _from_folder(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = [], []
    for part in ("train", "t10k"):
        images.append(read_idx(_gzipped_or_plain(folder / f"{part}-images-idx3-ubyte")))
        labels.append(read_idx(_gzipped_or_plain(folder / f"{part}-labels-idx1-ubyte")))
        if images[-1].shape[1:] != (SIDE, SIDE) or labels[-1].shape != images[-1].shape[:1]:
            raise DataError(
                f"{folder}: expected {part} images of {SIDE} × {SIDE} with one label each, "
                f"got {images[-1].shape} and {labels[-1].shape}"
            )
        if labels[-1].max(initial=0) >= 10:
            raise DataError(f"{folder}: expected {part} labels of 0 to 9, got {labels[-1].max()}")
    return np.concatenate(images).reshape(-1, SIDE * SIDE), np.concatenate(labels)


def _from_openml(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    files = f"{name}/ with the IDX files"
    pixels, labels = openml.fetch(name, OPENML[name], 1, as_frame=False, files=files)
    return pixels.astype(np.uint8), labels.astype(np.uint8)


def images(name: str, data: Path | None) -> Table:
    """Load `mnist` or `fashion-mnist`: 60,000 training and 10,000 test images of 28 × 28 pixels, 0 to 255.

    Args:
        name: of the data set.
        data: folder that may hold `<name>/` with the four IDX files, gzipped or not; else they come from OpenML.

    Raises:
        DataError: a file is missing or damaged, or OpenML cannot be reached.
    """
    if data is None or not (data / name).is_dir():
        pixels, labels = _from_openml(name)
        test_rows = TEST_ROWS
    else:
        folder = data / name
        pixels, labels = _from_folder(folder)
        test_rows = len(read_idx(_gzipped_or_plain(folder / "t10k-labels-idx1-ubyte")))
    return Table(
        name=name,
        x=pixels.astype(np.float32),
        y=labels.astype(np.int64),
        columns=tuple(Column(f"pixel_{row}_{column}") for row in range(SIDE) for column in range(SIDE)),
        target="digit" if name == "mnist" else "article",
        task=Task.CLASSIFICATION,
        classes=CLASSES[name],
        common_unit="grey level of 0 to 255",
        common_range=(0.0, 255.0),
        test_rows=test_rows,
    )
