"""What a network answers far beyond its training range: test rows, pushed out feature by feature.

Every numeric feature that has a value is put a distance beyond one end of its training range, the end drawn by chance
for each row and feature; categories and missing values stay. The ends are the same at all distances, so that each row
goes out along a line. Where there is a bound, the units continue their polynomials by tangents, and along that line
scores grow no faster than linearly and derivatives stay bounded; without one they may overflow, and that is told.
"""

import numpy as np
import onnx
from numpy.typing import NDArray

from model.manifest import Calibration, Stress
from model.outputs import Task
from model.ranges import out_of_ordinary_range
from training.data.table import Table
from training.evaluate import ROWS_AT_ONCE, answers_of, distribution, finite_rows, names_of, run_graph
from training.scaling import Scaling

DISTANCES = (0.1, 1.0, 10.0, 100.0, 1000.0)
ROWS_AT_MOST = 1_000


def stress(
    model: onnx.ModelProto,
    table: Table,
    rows: NDArray[np.int64],
    scaling: Scaling,
    calibration: Calibration,
    *,
    hidden_layers: int,
    seed: int,
) -> tuple[Stress, ...]:
    """Push rows out and ask the exported graph.

    Args:
        model: the graph.
        table: what the rows are of.
        rows: numbers of the test rows; of more than ROWS_AT_MOST, so many are drawn.
        scaling: the training range of each feature.
        calibration: by which the service calls a row out of range.
        hidden_layers: L.
        seed: of the drawn rows and ends.

    Returns:
        The nearest distance first.
    """
    generator = np.random.default_rng(seed)
    kept = np.sort(generator.choice(rows, min(len(rows), ROWS_AT_MOST), replace=False))
    x = np.asarray(table.x[kept])
    upward = generator.integers(0, 2, x.shape).astype(np.bool_)
    names = names_of(table, hidden_layers)
    score = "value" if table.task is Task.REGRESSION else "logits"

    def ask(pushed: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return run_graph(model, names, (pushed[k : k + ROWS_AT_ONCE] for k in range(0, len(pushed), ROWS_AT_ONCE)))

    at_home = ask(x)[score].astype(np.float64)
    found = []
    for distance in DISTANCES:
        pushed = push(x, table, scaling, distance, upward)
        outputs = ask(pushed)
        answers = answers_of(outputs)
        finite = bool(finite_rows(answers).all())
        outside = out_of_ordinary_range(
            pushed, scaling.minimum, scaling.maximum, scaling.scale, calibration.out_of_range_margin
        )
        outside |= answers.hidden_out_of_range > np.float32(calibration.hidden_out_of_range_maximum)
        found.append(
            Stress(
                distance=distance,
                rows=len(x),
                finite=finite,
                gradient_norm=distribution(answers.gradient_norm) if finite else None,
                score_change=float(np.abs(outputs[score] - at_home).max()) if finite else None,
                out_of_range=float(outside.mean()),
            )
        )
    return tuple(found)


def push(
    x: NDArray[np.float32], table: Table, scaling: Scaling, distance: float, upward: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Rows with their numeric features put beyond the training range.

    Args:
        x: raw rows, [rows, features].
        table: says which features are numeric.
        scaling: their ranges.
        distance: how far beyond, in widths of the feature's range (in σ where that is a point).
        upward: beyond which end, [rows, features].
    """
    least, greatest = scaling.minimum.astype(np.float64), scaling.maximum.astype(np.float64)
    width = np.where(greatest > least, greatest - least, scaling.scale)
    beyond = np.where(upward, greatest + distance * width, least - distance * width)
    limit = np.finfo(np.float32).max  # what is not a float32 number can reach no graph
    movable = ~np.isnan(x) & ~np.array([column.categorical for column in table.columns])
    return np.where(movable, np.clip(beyond, -limit, limit), x).astype(np.float32)
