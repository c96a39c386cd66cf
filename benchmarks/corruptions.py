"""Corrupted grey images, each kind in three degrees: for `drift.py`. Pure arrays, seeded.

Images are [rows, side, side], grey levels from 0 (paper) to 255 (ink); so are the corrupted ones, rounded to whole
levels as a file would hold them. Not covered: what a camera or a scanner does to a whole image (JPEG, perspective).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Images = NDArray[np.float32]
INK = 255.0


def noise(images: Images, deviation: float, seed: int) -> Images:
    """Gaussian noise of a standard deviation, in grey levels, on every pixel."""
    drawn = np.random.default_rng(seed).standard_normal(images.shape, np.float32)
    return _grey(images + np.float32(deviation) * drawn)


def salt_and_pepper(images: Images, share: float, seed: int) -> Images:
    """A share of the pixels, drawn for each image, become ink or paper, one as often as the other."""
    drawn = np.random.default_rng(seed).random(images.shape, np.float32)
    return np.where(drawn < share / 2, 0, np.where(drawn < share, INK, images)).astype(np.float32)


def inverted(images: Images, share: float, seed: int) -> Images:
    """Ink and paper exchanged, in a share of the images."""
    chosen = np.random.default_rng(seed).random(len(images)) < share
    return np.where(chosen[:, None, None], INK - images, images).astype(np.float32)


def blur(images: Images, deviation: float, seed: int) -> Images:  # noqa: ARG001  (nothing is drawn)
    """A Gaussian blur of a standard deviation in pixels."""
    return _grey(ndimage.gaussian_filter(images, (0, deviation, deviation)))


def contrast(images: Images, factor: float, seed: int) -> Images:  # noqa: ARG001
    """Ink that is paler by a factor; the paper stays white."""
    return _grey(images * np.float32(factor))


def shift(images: Images, pixels: float, seed: int) -> Images:  # noqa: ARG001
    """To the right; what leaves the image is lost."""
    return _grey(ndimage.shift(images, (0, 0, pixels), order=0))


def rotation(images: Images, degrees: float, seed: int) -> Images:  # noqa: ARG001
    """About the middle, counter-clockwise, bilinear; what leaves the image is lost."""
    return _grey(ndimage.rotate(images, degrees, axes=(2, 1), reshape=False, order=1))


def _grey(images: NDArray[np.float32]) -> Images:
    return np.rint(np.clip(images, 0, INK)).astype(np.float32)


KINDS: tuple[tuple[str, Callable[[Images, float, int], Images], tuple[float, float, float]], ...] = (
    ("Gaussian noise, σ = {:g} of 255", noise, (20, 50, 100)),
    ("salt and pepper on {:.0%} of the pixels", salt_and_pepper, (0.01, 0.05, 0.2)),
    ("Gaussian blur, σ = {:g} px", blur, (0.5, 1, 2)),
    ("contrast × {:g}", contrast, (0.75, 0.5, 0.25)),
    ("shift by {:g} px", shift, (1, 2, 4)),
    ("rotation by {:g}°", rotation, (10, 30, 90)),
    ("{:.0%} of the images inverted", inverted, (0.02, 0.1, 1)),
)


def corruptions(seed: int) -> dict[str, Callable[[Images], Images]]:
    """Every kind in every degree, by what it is called in a table; each call of one draws the same."""

    def of(corrupt: Callable[[Images, float, int], Images], degree: float, own: int) -> Callable[[Images], Images]:
        return lambda images: corrupt(images, degree, own)

    return {
        name.format(degree): of(corrupt, degree, seed + number)
        for number, (name, corrupt, degrees) in enumerate(KINDS)
        for degree in degrees
    }
