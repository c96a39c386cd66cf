"""What every candidate serves: one untrained 784-256-128-10 network, as a bundle, as bare graphs, and in torch.

Its accuracy is nothing, its cost that of a trained one. The rows asked about are standard normal, rounded to six
decimals: what a client that standardises its features sends, some 9 characters a number in JSON.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from model.bundle import MODEL_FILE, write
from model.encoding import Standardisation
from model.export import export
from model.graph import subgraph
from model.heads import ClassificationHead
from model.manifest import Architecture, Dreg, Evaluation, Feature, Manifest, Provenance, Rows, Target
from model.network import CRNetwork
from model.onnx_runtime import onnxruntime
from model.outputs import INPUT, Plan, graph_outputs, plan_outputs
from model.ranges import feature_excess
from training.calibrate import calibrate
from training.evaluate import Answers, distribution

NAME = "subject"
FEATURES, HIDDEN, CLASSES = 784, (256, 128), 10
ROWS_SEEN = 1000

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Subject:
    """Where the network lies on disk."""

    repository: Path
    """A folder of bundles with this one in it."""
    graphs: Mapping[Plan, Path]
    """The graph of each plan, cut as the service cuts it."""


def network() -> CRNetwork:
    """The network, the same in every process."""
    torch.manual_seed(0)
    return CRNetwork(Standardisation([0.0] * FEATURES, [1.0] * FEATURES), HIDDEN, ClassificationHead(CLASSES))


def rows(count: int, seed: int = 1) -> NDArray[np.float64]:
    """Rows to ask about, [count, features]; exact in JSON as they print."""
    return np.random.default_rng(seed).standard_normal((count, FEATURES)).round(6)


def write_subject(folder: Path) -> Subject:
    """Write the network as a bundle and as one graph a plan."""
    subject = network()
    seen = rows(ROWS_SEEN, seed=2).astype(np.float32)
    minimum, maximum = seen.min(axis=0), seen.max(axis=0)
    model = export(subject, minimum.tolist(), maximum.tolist())
    graphs = {}
    outputs = graph_outputs(
        subject.head.task, features=FEATURES, targets=CLASSES, hidden_layers=len(subject.polynomial_layers())
    )
    for plan in (Plan.PREDICT, Plan.SENSITIVITY):
        cut = subgraph(model, [output.name for output in plan_outputs(outputs, plan)])
        graphs[plan] = folder / f"{plan}.onnx"
        graphs[plan].write_bytes(cut.SerializeToString())
    answers = answer(graphs[Plan.SENSITIVITY], rows(ROWS_SEEN, seed=3).astype(np.float32))
    excess = feature_excess(rows(ROWS_SEEN, seed=3).astype(np.float32), minimum, maximum, np.ones(FEATURES, np.float32))

    def describe(version: int, digests: Mapping[str, str]) -> Manifest:
        return _manifest(subject, version, digests, answers, (minimum, maximum, excess))

    repository = folder / "bundles"
    write(repository, NAME, describe, {MODEL_FILE: model.SerializeToString()})
    return Subject(repository, graphs)


def answer(graph: Path, x: Values) -> dict[str, Values]:
    """Every output of a graph, by ONNX Runtime on one thread: what a server's answer is held against."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: x}), strict=True))


def _manifest(
    subject: CRNetwork,
    version: int,
    digests: Mapping[str, str],
    outputs: Mapping[str, Values],
    ranges: tuple[Values, Values, NDArray[np.float64]],
) -> Manifest:
    """A manifest that is true of a network that nobody trained."""
    minimum, maximum, excess = ranges
    layers = subject.polynomial_layers()
    norms = outputs["gradient_norm"]
    answers = Answers({}, norms, outputs["out_of_range"], outputs["hidden_out_of_range"])
    return Manifest(
        name=NAME,
        version=version,
        task=subject.head.task,
        features=tuple(
            Feature(name=f"x{k}", minimum=float(minimum[k]), maximum=float(maximum[k]), mean=0.0, scale=1.0)
            for k in range(FEATURES)
        ),
        target=Target(name="class", classes=tuple(map(str, range(CLASSES)))),
        architecture=Architecture(
            hidden=HIDDEN,
            degree=layers[0].activation.degree,
            bound=layers[0].activation.bound,
            parameters=subject.parameter_count(),
        ),
        provenance=Provenance(
            dataset="standard normal rows",
            dataset_sha256="0" * 64,
            rows=Rows(training=ROWS_SEEN, calibration=ROWS_SEEN, test=ROWS_SEEN),
            seed=0,
            epochs=0,
            batch_size=1,
            learning_rate=0.0,
            weight_decay=0.0,
            dreg=Dreg(form="local", schedule="constant", start_weight=0.0, end_weight=0.0, ramp=(0.0, 1.0)),
            packages={"onnx": onnx.__version__, "torch": str(torch.__version__)},
            source_revision=None,
            created=datetime.now(UTC),
            training_seconds=0.0,
        ),
        evaluation=Evaluation(metrics={}, gradient_norm=distribution(norms), parameters=subject.parameter_count()),
        comparisons=(),
        calibration=calibrate(answers, excess),
        files=dict(digests),
    )
