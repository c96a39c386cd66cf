"""The bundle of an estimator: what `chainzrule-train fit` would have written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from model import bundle
from model.manifest import Calibration, Provenance
from model.network import CRNetwork
from training.config import FitConfig
from training.data.table import Table
from training.description import description
from training.evaluate import ask_graph, evaluate
from training.scaling import Scaling


@dataclass(frozen=True)
class Learned:
    """What a bundle says beside the network: kept by `fit`."""

    config: FitConfig
    scaling: Scaling
    provenance: Provenance
    calibration: Table
    """The calibration rows alone."""


def write(
    repository: Path,
    name: str,
    learned: Learned,
    network: CRNetwork,
    graph: bytes,
    calibration: Calibration,
    test: Table | None,
) -> Path:
    """Write the next version of a model.

    Args:
        repository: folder of models; made if it is not there.
        name: of the model.
        learned: what `fit` kept.
        network: trained.
        graph: its ONNX model.
        calibration: of its graph.
        test: rows to evaluate it on; None for the calibration rows, and the manifest counts no test rows.

    Returns:
        The bundle's folder.

    Raises:
        model.errors.BundleError: the name is no model's, or the repository cannot be written.
    """
    config = learned.config
    measured = learned.calibration if test is None else test
    rows = np.arange(len(measured.y))
    answers = ask_graph(onnx.load_model_from_string(graph), measured, rows, len(config.hidden))
    evaluation = evaluate(answers, measured, rows, network.parameter_count(), config.seed)
    counts = learned.provenance.rows
    tested = counts.model_copy(update={"test": 0 if test is None else len(rows)})

    describe = description(
        name,
        config,
        measured,
        learned.scaling,
        network,
        provenance=learned.provenance.model_copy(update={"dataset": name, "rows": tested}),
        evaluation=evaluation,
        calibration=calibration,
    )
    return bundle.write(repository, name, describe, {bundle.MODEL_FILE: graph})
