"""What the polynomials became."""

from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from model.manifest import Manifest
from training.report.charts.polynomials import UNITS, Curve, grid
from training.report.gradients import ROWS_AT_ONCE, spread
from training.report.material import Material

POINTS = 61
ROWS = 2_000
BEYOND = 1.3
"""How far is drawn, in bounds."""
LEAST_REACH = 1.0


@dataclass(frozen=True)
class Layer:
    """The units of one hidden layer, the farthest from the identity first."""

    number: int
    units: int
    shown: int
    plot: Markup
    median_distance: float
    greatest_distance: float
    beyond: float | None
    """Share of all pre-activations of test rows beyond the bound; None without a bound."""


def polynomials(manifest: Manifest, material: Material) -> tuple[Layer, ...]:
    """Draw every hidden layer's polynomials; none of degree 1, which are straight lines."""
    if manifest.architecture.degree < 2:
        return ()
    found = _preactivations(material)
    layers = []
    for number, (layer, zs) in enumerate(zip(material.network.polynomial_layers(), found, strict=True), start=1):
        bound = layer.activation.bound
        reach = BEYOND * bound if bound is not None else max(float(np.quantile(np.abs(zs), 0.999)), LEAST_REACH)
        z = np.linspace(-reach, reach, POINTS)
        with torch.no_grad():
            h, _ = layer.activation(torch.from_numpy(z.astype(np.float32))[:, None].expand(-1, zs.shape[1]))
        curves = h.double().numpy()
        distances = distance_from_identity(z, curves, bound)
        used = np.quantile(zs, (0.01, 0.99), axis=0).clip(-reach, reach)
        order = np.argsort(-distances, kind="stable")[:UNITS]
        shown = [Curve(int(k), curves[:, k], (float(used[0, k]), float(used[1, k]))) for k in order]
        layers.append(
            Layer(
                number=number,
                units=zs.shape[1],
                shown=len(shown),
                plot=grid(number, z, shown, bound),
                median_distance=float(np.median(distances)),
                greatest_distance=float(distances.max()),
                beyond=None if bound is None else float((np.abs(zs) > bound).mean()),
            )
        )
    return tuple(layers)


def distance_from_identity(
    z: NDArray[np.float64], curves: NDArray[np.float64], bound: float | None
) -> NDArray[np.float64]:
    """The root mean square of p(z) − z over the grid within the bound, [units].

    Args:
        z: the grid, [points].
        curves: p(z), [points, units].
        bound: beyond which the grid does not count; None counts all of it.
    """
    within = np.abs(z) <= (np.inf if bound is None else bound)
    differences: NDArray[np.float64] = np.sqrt(((curves - z[:, None])[within] ** 2).mean(axis=0))
    return differences


def _preactivations(material: Material) -> list[NDArray[np.float32]]:
    """z of each hidden layer on test rows, [rows, units]."""
    rows = spread(material.parts.test, ROWS)
    found: list[list[NDArray[np.float32]]] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):
        with torch.no_grad():
            x = torch.from_numpy(np.ascontiguousarray(material.table.x[rows[start : start + ROWS_AT_ONCE]]))
            found.append([z.numpy() for z in material.network.trace(x).preactivations])
    return [np.concatenate(layer) for layer in zip(*found, strict=True)]
