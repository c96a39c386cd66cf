"""Small networks, rows, manifests and whole bundles for the tests, each from a visible seed.

Every number of a network is random, so that no term of a formula is zero by chance of the initialisation: biases,
thresholds and all polynomial coefficients included. What a manifest says of its network is measured and not made up:
quantiles and metrics come from the exported graph, run by ONNX Runtime over random rows.
"""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from model.bundle import MODEL_FILE, write
from model.encoding import Encoding, Standardisation
from model.export import export
from model.heads import ClassificationHead, Head, OrdinalHead, RegressionHead
from model.manifest import (
    QUANTILE_LEVELS,
    Architecture,
    Calibration,
    Distribution,
    Dreg,
    Evaluation,
    Feature,
    Manifest,
    Provenance,
    Rows,
    Target,
)
from model.network import CRNetwork
from model.outputs import INPUT, Task
from model.ranges import feature_excess

Values = NDArray[np.float32]

REPORT_FILE = "report.html"
REPORT = b"<!doctype html><title>A model for tests</title>\n"
CALIBRATION_ROWS = 400
TEST_ROWS = 300
RANGE = 2.5
"""Where the training range of a built network ends, in standard deviations on either side of the mean."""
MIXED_FEATURES = 5
MIXED_CATEGORIES = {1: 3, 4: 3}
"""How many numbers each categorical feature of a mixed network has, by its place."""
MIXED_MISSING = (2, 4)
"""Features of a mixed network whose values may be missing: a number, and a category that knows others too."""
TEXTS = ("3", "true", 'Rot, "tief"')
"""What categories are called, by their numbers: as numbers and truth values would be, and with what CSV must quote."""
MISSING_SHARE = 0.3


def make_head(task: Task, targets: int, levels: Sequence[float] | None = None) -> Head:
    """A head of `targets` classes or levels, worth `levels`; a regression head has units of its own instead."""
    match task:
        case Task.CLASSIFICATION:
            return ClassificationHead(targets)
        case Task.ORDINAL:
            return OrdinalHead(targets, levels)
        case Task.REGRESSION:
            return RegressionHead(mean=12.0, scale=2.5)


def make_network(
    task: Task = Task.CLASSIFICATION,
    *,
    features: int = 5,
    hidden: Sequence[int] = (8, 6),
    degree: int = 3,
    bound: float | None = 3.0,
    targets: int = 4,
    levels: Sequence[float] | None = None,
    seed: int = 0,
) -> CRNetwork:
    """A float32 network whose every number is random, ready to predict.

    Args:
        task: which head it carries.
        features: d.
        hidden: units of each hidden layer.
        degree: of the polynomials; c_k spreads by 0.3 / k!, so that a high degree stays tame.
        bound: where the tangent continuation begins, None for never.
        targets: classes or levels; regression ignores it.
        levels: what each level is worth; None for 0, 1, …
        seed: of everything.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        mean, scale = torch.randn(features), torch.empty(features).uniform_(0.5, 2.0)
        network = CRNetwork(
            Standardisation(mean.tolist(), scale.tolist()),
            hidden,
            make_head(task, targets, levels),
            degree=degree,
            bound=bound,
        )
        _stir(network)
    return network.eval()


def make_mixed_network(
    task: Task = Task.CLASSIFICATION, *, hidden: Sequence[int] = (8, 6), targets: int = 3, seed: int = 0
) -> CRNetwork:
    """The same with three numeric and two categorical features, some of which may be missing: see `MIXED_…`."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        mean, scale = torch.randn(MIXED_FEATURES), torch.empty(MIXED_FEATURES).uniform_(0.5, 2.0)
        for place in MIXED_CATEGORIES:
            mean[place], scale[place] = 0.0, 1.0
        standardisation = Standardisation(mean.tolist(), scale.tolist())
        network = CRNetwork(
            Encoding(standardisation, MIXED_CATEGORIES, MIXED_MISSING), hidden, make_head(task, targets)
        )
        _stir(network)
        network.encoding.imputed.normal_()
        network.polynomial_layers()[0].weight[:, len(network.encoding.numeric) :].normal_(std=0.4)
    return network


def _stir(network: CRNetwork) -> None:
    """Make what begins as nothing, or as one, random."""
    for layer in network.polynomial_layers():
        layer.bias.normal_(std=0.3)
        for power, coefficient in enumerate(layer.activation.coefficients):
            coefficient.add_(torch.randn_like(coefficient), alpha=0.3 / math.factorial(power))
    network.output.bias.normal_(std=0.3)
    for parameter in network.head.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.2)


def categories_of(network: CRNetwork) -> dict[int, int]:
    """How many numbers each categorical feature has, by its place."""
    encoding = network.encoding
    places = sorted(set(encoding.column_feature.tolist()))
    return {place: int(encoding.stand_in[place]) for place in places}


def make_rows(network: CRNetwork, count: int, *, seed: int, spread: float = 1.0) -> Values:
    """Raw rows around the network's own mean, `spread` of its standard deviations wide: [count, features].

    Categories are drawn alike; of a feature whose values may be missing, `MISSING_SHARE` are.
    """
    standardisation = network.standardisation
    mean, scale = standardisation.mean.numpy(), standardisation.scale.numpy()
    generator = np.random.default_rng(seed)
    rows = (mean + spread * scale * generator.standard_normal((count, len(mean)))).astype(np.float32)
    for place, numbers in categories_of(network).items():
        rows[:, place] = generator.integers(0, numbers, count)
    for place in network.encoding.missing:
        rows[generator.random(count) < MISSING_SHARE, place] = np.nan
    return rows


def training_range(network: CRNetwork) -> tuple[list[float], list[float]]:
    """Least and greatest training value of each feature: `RANGE` standard deviations around the mean."""
    standardisation = network.standardisation
    reach = RANGE * standardisation.scale
    least, greatest = standardisation.mean - reach, standardisation.mean + reach
    for place, numbers in categories_of(network).items():
        least[place], greatest[place] = 0.0, numbers - 1.0
    return least.tolist(), greatest.tolist()


def make_features(network: CRNetwork) -> tuple[Feature, ...]:
    """What a manifest says of a network's features; a category that may be missing knows others too."""
    standardisation, encoding = network.standardisation, network.encoding
    columns = zip(*training_range(network), standardisation.mean.tolist(), standardisation.scale.tolist(), strict=True)
    categories = categories_of(network)
    imputed = dict(zip(encoding.indicated.tolist(), encoding.imputed.tolist(), strict=True))
    found = []
    for k, (minimum, maximum, mean, scale) in enumerate(columns):
        common = {"name": f"x{k}", "minimum": minimum, "maximum": maximum, "mean": mean, "scale": scale}
        missing = k in encoding.missing
        if k in categories:
            texts = TEXTS[: categories[k] - missing]
            found.append(Feature(**common, type="categorical", categories=texts, other=missing, missing=missing))
        else:
            value = mean + imputed[k] * scale if missing else None
            found.append(Feature(**common, unit="mm", missing=missing, imputed=value))
    return tuple(found)


def sent_rows(rows: Values, features: Sequence[Feature]) -> list[list[float | str | None]]:
    """Rows as a person would write them: numbers, texts of categories, None for what is missing."""

    def sent(value: float, feature: Feature) -> float | str | None:
        if math.isnan(value):
            return None
        return value if feature.type == "numeric" else (*feature.categories, "something else")[int(value)]

    return [[sent(value, feature) for value, feature in zip(row, features, strict=True)] for row in rows.tolist()]


def export_network(network: CRNetwork) -> onnx.ModelProto:
    """The network's graph, with its `training_range`."""
    return export(network, *training_range(network))


def make_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, rows: Values) -> dict[str, Values]:
    """Every output of a session, by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: rows}), strict=True))


def run_graph(model: onnx.ModelProto, rows: Values) -> dict[str, Values]:
    """Every output of a graph, by name, from a session of its own."""
    return run_session(make_session(model), rows)


def make_distribution(values: Values) -> Distribution:
    """Figures of one value a row."""
    exact = values.astype(np.float64)
    p50, p95, p99 = np.quantile(exact, (0.5, 0.95, 0.99)).tolist()
    mean = float(exact.mean())
    return Distribution(
        rows=len(exact),
        mean=mean,
        p50=p50,
        p95=p95,
        p99=p99,
        maximum=float(exact.max()),
        tail_ratio=p99 / mean if mean else None,
    )


def make_calibration(outputs: Mapping[str, Values], margin: float) -> Calibration:
    """The calibration that the outputs of a graph over the calibration rows give, and how far out the farthest lies."""
    norms = outputs["gradient_norm"].astype(np.float64)
    return Calibration(
        gradient_norm=make_distribution(outputs["gradient_norm"]),
        minimum=float(norms.min()),
        quantiles={
            str(level): value
            for level, value in zip(QUANTILE_LEVELS, np.quantile(norms, QUANTILE_LEVELS).tolist(), strict=True)
        },
        hidden_out_of_range_maximum=float(outputs["hidden_out_of_range"].max()),
        out_of_range_rows=float((outputs["out_of_range"] > 0).mean()),
        out_of_range_margin=margin,
    )


def make_evaluation(head: Head, outputs: Mapping[str, Values], *, parameters: int, seed: int) -> Evaluation:
    """Metrics of a graph's outputs against targets that are drawn from its own predictions, as if these were right."""
    generator = np.random.default_rng(seed)
    if isinstance(head, RegressionHead):
        errors = generator.standard_normal(len(outputs["value"]))
        target = outputs["value"] + errors
        metrics = {
            "mean_absolute_error": float(np.abs(errors).mean()),
            "root_mean_squared_error": float(np.sqrt((errors**2).mean())),
            "r2": float(1 - (errors**2).sum() / ((target - target.mean()) ** 2).sum()),
        }
    else:
        probabilities = outputs["probabilities"]
        draws = generator.random((len(probabilities), 1))
        target = (draws > probabilities.cumsum(axis=1)[:, :-1]).sum(axis=1)
        right, confidence = probabilities.argmax(axis=1) == target, probabilities.max(axis=1)
        bins = np.minimum((confidence * 15).astype(int), 14)
        gaps = [abs((right[bins == k] - confidence[bins == k]).sum()) for k in range(15)]
        metrics = {"accuracy": float(right.mean()), "expected_calibration_error": float(sum(gaps) / len(target))}
        if isinstance(head, OrdinalHead):
            truth = head.values.numpy()[target]
            metrics["mean_absolute_error"] = float(np.abs(outputs["expected_level"] - truth).mean())
    return Evaluation(metrics=metrics, gradient_norm=make_distribution(outputs["gradient_norm"]), parameters=parameters)


def make_manifest(
    network: CRNetwork,
    *,
    name: str = "demo",
    version: int = 1,
    files: Mapping[str, str] | None = None,
    model: onnx.ModelProto | None = None,
    seed: int = 0,
) -> Manifest:
    """A complete manifest of a network.

    Args:
        network: float32, of any task.
        name: of the model.
        version: of the model.
        files: SHA-256 by file name; by default a made-up one for `model.onnx`.
        model: the network's graph; exported here where it is left out.
        seed: of the calibration and test rows.
    """
    session = make_session(model or export_network(network))
    calibration_rows = make_rows(network, CALIBRATION_ROWS, seed=seed + 1)
    calibration = run_session(session, calibration_rows)
    evaluation = run_session(session, make_rows(network, TEST_ROWS, seed=seed + 2))
    task = network.head.task
    standardisation = network.standardisation
    minimum_maximum = training_range(network)
    scale = standardisation.scale.numpy()
    least, greatest = (np.array(values, np.float32) for values in minimum_maximum)
    margin = feature_excess(calibration_rows, least, greatest, scale).max()
    layers = network.polynomial_layers()
    parameters = network.parameter_count()
    return Manifest(
        name=name,
        version=version,
        task=task,
        features=make_features(network),
        target=_target(network.head),
        architecture=Architecture(
            hidden=tuple(len(layer.weight) for layer in layers),
            degree=layers[0].activation.degree,
            bound=layers[0].activation.bound,
            parameters=parameters,
        ),
        provenance=Provenance(
            dataset="random rows",
            dataset_sha256="0" * 64,
            rows=Rows(training=1000, calibration=CALIBRATION_ROWS, test=TEST_ROWS),
            seed=seed,
            epochs=1,
            batch_size=32,
            learning_rate=0.001,
            weight_decay=0.0,
            dreg=Dreg(form="local", schedule="cosine", start_weight=0.0, end_weight=0.01, ramp=(0.1, 0.9)),
            packages={"onnx": onnx.__version__, "torch": str(torch.__version__)},
            source_revision=None,
            created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            training_seconds=1.5,
        ),
        evaluation=make_evaluation(network.head, evaluation, parameters=parameters, seed=seed + 3),
        comparisons=(),
        calibration=make_calibration(calibration, float(margin)),
        files={MODEL_FILE: "0" * 64} if files is None else dict(files),
    )


def _target(head: Head) -> Target:
    """What a manifest says of a head's target; levels that are worth their places have texts for names."""
    if isinstance(head, ClassificationHead):
        return Target(name="class", classes=tuple(f"class {k}" for k in range(head.scores)))
    if not isinstance(head, OrdinalHead):
        return Target(name="value", unit="kg")
    values = head.values.tolist()
    places = values == list(range(head.levels))
    names = tuple(f"level {k}" if places else f"{v:g}" for k, v in enumerate(values))
    return Target(name="level", classes=names, values=tuple(values))


def as_schema_1(manifest: Manifest) -> dict[str, Any]:
    """A manifest as the first schema had it, of a model whose features are all numeric and never missing.

    Written out from that schema, field by field: what it did not know is not there, and the one network that was
    trained to compare with, here the model's own figures, is the `baseline`.
    """
    document: dict[str, Any] = json.loads(manifest.model_dump_json())
    known = ("name", "unit", "type", "minimum", "maximum", "mean", "scale")
    document["schema_version"] = 1
    document["features"] = [{name: feature[name] for name in known} for feature in document["features"]]
    for name in ("comparisons", "stress"):
        del document[name]
    del document["evaluation"]["intervals"]
    for name in ("quantile_intervals", "temperature", "uncalibrated_error"):
        del document["calibration"][name]
    document["baseline"] = {name: document["evaluation"][name] for name in ("metrics", "gradient_norm", "parameters")}
    return document


def write_bundle(repository: Path, name: str, network: CRNetwork, *, seed: int = 0) -> Path:
    """Write the next version of a model into a repository: graph, report and an honest manifest."""
    model = export_network(network)

    def describe(version: int, digests: Mapping[str, str]) -> Manifest:
        return make_manifest(network, name=name, version=version, files=digests, model=model, seed=seed)

    return write(repository, name, describe, {MODEL_FILE: model.SerializeToString(), REPORT_FILE: REPORT})


def make_bundle(
    repository: Path,
    name: str = "demo",
    *,
    task: Task = Task.CLASSIFICATION,
    features: int = 5,
    hidden: Sequence[int] = (8, 6),
    degree: int = 3,
    bound: float | None = 3.0,
    targets: int = 4,
    levels: Sequence[float] | None = None,
    seed: int = 0,
) -> Path:
    """Write a random network as the next version of a model, and return the bundle's folder.

    The arguments after `name` are those of `make_network`.
    """
    network = make_network(
        task,
        features=features,
        hidden=hidden,
        degree=degree,
        bound=bound,
        targets=targets,
        levels=levels,
        seed=seed,
    )
    return write_bundle(repository, name, network, seed=seed)
