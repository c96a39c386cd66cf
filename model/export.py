"""A CR network as one ONNX graph that holds every output of `model.outputs`.

The mathematics is written out in ordinary operators, never traced: the reverse sweep of `model.sensitivity` becomes
matrix products beside the forward pass, so that whatever runs the prediction also runs its sensitivity. No operator
computes a shape, so that none is bound to the CPU and the batch stays free.

Notation as in `model.sensitivity`. The S explained scalars (or the O rows of the Jacobian) of all rows are swept
together, as [batch, S, n_l]: one matrix product a layer.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from model.errors import ArchitectureError
from model.graph import GraphBuilder
from model.heads import ClassificationHead, OrdinalHead, RegressionHead
from model.network import CRNetwork
from model.outputs import FLIPS, INPUT, graph_outputs
from model.polynomial import PolynomialActivation
from model.sensitivity import norm_factor


def export(network: CRNetwork, minimum: Sequence[float], maximum: Sequence[float]) -> onnx.ModelProto:
    """Write the graph of a network.

    Args:
        network: of any task; its numbers are written as float32.
        minimum: least training value of each feature, in its units: what `out_of_range` is measured against.
        maximum: greatest training value of each feature.

    Returns:
        A checked model with the input `input` [batch, d] and the outputs of `graph_outputs`.

    Raises:
        ArchitectureError: `minimum` or `maximum` does not fit the features, or a parameter or a constant is not finite.
    """
    features = network.encoding.features
    if not len(minimum) == len(maximum) == features:
        raise ArchitectureError(f"expected a range for {features} features, got {len(minimum)} and {len(maximum)}")
    if not all(low <= high for low, high in zip(minimum, maximum, strict=True)):  # false for NaN too
        raise ArchitectureError("minimum, maximum: expected numbers with minimum ≤ maximum for every feature")
    for name, values in network.state_dict().items():
        if not values.float().isfinite().all():
            raise ArchitectureError(f"{name}: expected finite numbers of float32, got others (did training diverge?)")
    with torch.no_grad():
        writer = _Writer(network)
        writer.forward()
        writer.sensitivity()
        writer.ranges(minimum, maximum)
        writer.flips()
    targets = network.head.levels if isinstance(network.head, OrdinalHead) else network.head.scores
    outputs = graph_outputs(
        network.head.task,
        features=features,
        targets=targets,
        hidden_layers=len(network.polynomial_layers()),
        columns=len(network.encoding.column_feature),
    )
    return writer.graph.build("chainzrule", {INPUT: (features,)}, {output.name: output.shape for output in outputs})


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().cpu().numpy().astype(np.float32)


class _Writer:
    """Writes the parts of one network; each part leaves the names that the next one needs."""

    def __init__(self, network: CRNetwork) -> None:
        self.graph = GraphBuilder()
        self.network = network
        self.layers = network.polynomial_layers()
        self.preactivations: list[str] = []
        self.derivatives: list[str] = []
        self.slopes: list[str] = []  # the derivatives as [batch, 1, n_l]
        self.missing = ""  # whether a value is missing, [batch, d]; empty where none ever is
        self.columns = ""  # the category columns of the encoded rows, [batch, C]
        self.movable = ""  # 1 where no value is missing, else 0, [batch, d]; empty where none ever is
        self.scores = ""
        self.top_two = ""  # the two greatest logits; their class numbers are `<name>.1`

    def constant(self, name: str, tensor: torch.Tensor) -> str:
        return self.graph.constant(name, _array(tensor))

    def indices(self, *values: int) -> str:
        return self.graph.constant("indices/" + "_".join(map(str, values)), np.array(values))

    def forward(self) -> None:
        """x̂, every z_l and p′(z_l), the scores, and the outputs of the `predict` plan."""
        apply = self.graph.apply
        h = self.encode()
        for number, layer in enumerate(self.layers, start=1):
            weight = self.constant(f"layer{number}/weight", layer.weight)
            bias = self.constant(f"layer{number}/bias", layer.bias)
            z = apply("Gemm", h, weight, bias, name=f"layer{number}/z", transB=1)
            h, derivative = self.activation(number, layer.activation, z)
            self.preactivations.append(z)
            self.derivatives.append(derivative)
            self.slopes.append(apply("Unsqueeze", derivative, self.indices(1)))
        weight = self.constant("output/weight", self.network.output.weight)
        bias = self.constant("output/bias", self.network.output.bias)
        head = self.network.head
        name = "logits" if isinstance(head, ClassificationHead) else "scores"
        self.scores = apply("Gemm", h, weight, bias, name=name, transB=1)
        match head:
            case ClassificationHead():
                apply("Softmax", self.scores, name="probabilities", axis=-1)
            case OrdinalHead():
                logits = apply("Sub", self.scores, self.constant("thresholds", head.thresholds), name="logits")
                exceeds = apply("Sigmoid", logits, name="exceeds")
                self.expected_level(exceeds, head, axis=1, name="expected_level")
                before, after = (
                    self.graph.constant("pad/before", [0, 1, 0, 0]),
                    self.graph.constant("pad/after", [0, 0, 0, 1]),
                )
                at_least = apply("Pad", exceeds, before, self.graph.constant("one", 1.0))
                more_than = apply("Pad", exceeds, after, self.graph.constant("zero", 0.0))
                # ONNX Runtime's Sigmoid is not monotone in its last bits: without Relu a probability can be -1e-7.
                apply("Relu", apply("Sub", at_least, more_than), name="probabilities")
            case RegressionHead():
                scaled = apply("Mul", self.scores, self.constant("target/scale", head.scale))
                value = apply("Add", scaled, self.constant("target/mean", head.mean))
                apply("Reshape", value, self.indices(-1), name="value")

    def expected_level(self, exceeds: str, head: OrdinalHead, *, axis: int, name: str) -> None:
        """v_0 + Σ_k (v_{k+1} − v_k) P(level > k), the sum over the last axis of `exceeds`."""
        parts = self.graph.apply("Mul", exceeds, self.constant("level/steps", head.values.diff()))
        rise = self.graph.apply("ReduceSum", parts, self.indices(axis), keepdims=0)
        self.graph.apply("Add", rise, self.constant("level/lowest", head.values[0]), name=name)

    def encode(self) -> str:
        """h_0, as `model.encoding` has it."""
        apply = self.graph.apply
        encoding = self.network.encoding
        values, missing = INPUT, ""
        if encoding.missing:
            missing = apply("IsNaN", INPUT)
            for k, numbers in enumerate(encoding.missing_numbers):
                marked = apply("Equal", INPUT, self.constant(f"missing/{k}", numbers))
                missing = apply("Or", missing, marked)
            values = apply("Where", missing, self.constant("stand_in", encoding.stand_in), INPUT)
        centred = apply("Sub", values, self.constant("mean", encoding.standardisation.mean))
        numbers = apply("Div", centred, self.constant("scale", encoding.standardisation.scale), name="standardised")
        self.missing = missing
        if encoding.plain:
            return numbers
        numbers = self.gather(numbers, encoding.numeric)
        parts = [numbers]
        if len(encoding.indicated):
            imputed = torch.zeros(len(encoding.numeric)).index_put((encoding.imputed_at,), encoding.imputed)
            absent = self.floats(self.gather(missing, encoding.numeric))
            parts = [apply("Add", numbers, apply("Mul", absent, self.constant("imputed", imputed)))]
            self.movable = self.floats(apply("Not", missing))
        if len(encoding.column_feature):
            held = self.gather(values, encoding.column_feature)
            self.columns = self.floats(apply("Equal", held, self.constant("categories/number", encoding.column_number)))
            parts.append(self.columns)
        if len(encoding.indicated):
            parts.append(self.floats(self.gather(missing, encoding.indicated)))
        return apply("Concat", *parts, axis=1, name="encoded")

    def gather(self, values: str, places: torch.Tensor) -> str:
        """Columns of [batch, n] by their places."""
        return self.graph.apply("Gather", values, self.indices(*places.tolist()), axis=1)

    def floats(self, flags: str) -> str:
        """1 for true, 0 for false."""
        return self.graph.apply("Cast", flags, to=onnx.TensorProto.FLOAT)

    def activation(self, number: int, activation: PolynomialActivation, z: str) -> tuple[str, str]:
        """p and p′ by Horner's rule in one pass, with the tangent continuation where there is a bound."""
        apply = self.graph.apply
        clipped = z
        if activation.bound is not None:
            bound = activation.bound
            clipped = apply(
                "Clip", z, self.graph.constant("bound/lower", -bound), self.graph.constant("bound/upper", bound)
            )
        *lower_powers, second, first = (
            self.constant(f"layer{number}/c{k}", coefficient) for k, coefficient in enumerate(activation.coefficients)
        )
        product = apply("Mul", clipped, first)
        value = apply("Add", product, second)
        derivative = ""
        for power in reversed(lower_powers):  # c_N z is at hand for the first step: there p′ so far is c_N
            carried = apply("Mul", clipped, derivative) if derivative else product
            derivative = apply("Add", carried, value)
            value = apply("Add", apply("Mul", clipped, value), power)
        if not derivative:  # degree 1: p′ is a constant; give it the batch axis that the rest expects
            derivative = apply("Add", apply("Mul", clipped, self.graph.constant("zero", 0.0)), first)
        if activation.bound is not None:
            value = apply("Add", value, apply("Mul", derivative, apply("Sub", z, clipped)))
        return value, derivative

    def sensitivity(self) -> None:
        """Gradient norms, margin, layer derivatives, the gradient and the Jacobian."""
        apply = self.graph.apply
        head = self.network.head
        if isinstance(head, ClassificationHead):
            self.top_two = apply("TopK", self.scores, self.indices(2), name="top_two", outputs=2)
            apply("Sub", self.scalar(self.top_two, 0), self.scalar(self.top_two, 1), name="margin")
        swept = self.sweep(self.cotangent_times_output_weight())
        self.norms(swept)
        squares = [
            apply(
                "MatMul",
                apply("Mul", derivative, derivative),
                self.constant(f"layer{number}/row_norms_squared", layer.weight.square().sum(dim=1, keepdim=True)),
            )
            for number, (layer, derivative) in enumerate(zip(self.layers, self.derivatives, strict=True), start=1)
        ]
        apply("Sqrt", apply("Concat", *squares, axis=1), name="layer_derivatives")
        gradient = apply(
            "MatMul", self.scalar(swept, 0), self.weight_by_feature(), name=self.unless_movable("gradient")
        )
        if self.movable:
            apply("Mul", gradient, self.movable, name="gradient")
        self.jacobian()

    def unless_movable(self, name: str) -> str | None:
        """The name of a result that needs no mask; None where it does."""
        return None if self.movable else name

    def weight_by_feature(self) -> str:
        """∂z_1/∂x̂ [n_1, d], the first layer's weights by the features: zero at categories."""
        encoding = self.network.encoding
        if encoding.plain:
            return "layer1/weight"
        weight = self.layers[0].weight
        by_feature = weight.new_zeros((len(weight), encoding.features))
        by_feature[:, encoding.numeric] = weight[:, : len(encoding.numeric)]
        return self.constant("layer1/weight_by_feature", by_feature)

    def scalar(self, values: str, k: int, name: str | None = None) -> str:
        """Those of the k-th explained scalar, out of [batch, S, …]."""
        return self.graph.apply("Gather", values, self.graph.constant(f"index/{k}", k), axis=1, name=name)

    def cotangent_times_output_weight(self) -> str:
        """The first product of the sweep, ∂s/∂score · W_o: [batch or 1, S, n_L]."""
        apply = self.graph.apply
        head = self.network.head
        weight = self.network.output.weight
        if isinstance(head, ClassificationHead):
            rows = apply("Gather", "output/weight", f"{self.top_two}.1", axis=0)
            best = apply("Split", rows, self.graph.constant("split/two", [1, 1]), axis=1, outputs=2)
            return apply("Concat", best, apply("Sub", best, f"{best}.1"), axis=1)
        if isinstance(head, OrdinalHead):
            decay = apply("Exp", apply("Neg", apply("Abs", "logits")))
            total = apply("Add", self.graph.constant("one", 1.0), decay)
            slopes = apply("Div", decay, apply("Mul", total, total))
            steps = self.constant("level/steps", head.values.diff())
            slope = apply("ReduceSum", apply("Mul", slopes, steps), self.indices(1), keepdims=1)
            row = self.constant("output/weight_row", weight[None])
            return apply("Mul", apply("Unsqueeze", slope, self.indices(1)), row)
        return self.constant("output/weight_scaled", head.jacobian_cotangent(weight[:1, :1]) @ weight)

    def sweep(self, g: str) -> str:
        """From [batch or 1, S, n_L] back to ∂s/∂z_1, [batch, S, n_1]."""
        apply = self.graph.apply
        for number in range(len(self.layers), 0, -1):
            g = apply("Mul", g, self.slopes[number - 1])
            if number > 1:
                g = apply("MatMul", g, f"layer{number}/weight")
        return g

    def norms(self, swept: str) -> None:
        """‖∂s/∂x̂‖ of each scalar, through the factor that is cheaper than the last product of the sweep."""
        apply = self.graph.apply
        squares = ""
        if self.movable:  # which of the features count differs from row to row
            product = apply("MatMul", swept, self.weight_by_feature())
            product = apply("Mul", product, apply("Unsqueeze", self.movable, self.indices(1)))
            squares = apply("ReduceSum", apply("Mul", product, product), self.indices(2), keepdims=0)
            self.name_norms(squares)
            return
        factor = norm_factor(self.layers[0].weight[:, : len(self.network.encoding.numeric)])
        rows, columns = factor.shape
        # A square factor is lower triangular: its right half is zero in the upper rows, two blocks save a quarter of
        # the product. Below 64 units the second call costs more than it saves.
        blocks = [(0, columns // 2), (columns // 2, columns)] if rows == columns >= 64 else [(0, columns)]
        for start, end in blocks:
            part = apply("Slice", swept, self.indices(start), self.indices(rows), self.indices(2)) if start else swept
            product = apply("MatMul", part, self.constant(f"layer1/norm_factor/{start}", factor[start:, start:end]))
            # Not ReduceL2: its kernel in ONNX Runtime takes 2.7 times as long as these two.
            square = apply("ReduceSum", apply("Mul", product, product), self.indices(2), keepdims=0)
            squares = apply("Add", squares, square) if squares else square
        self.name_norms(squares)

    def name_norms(self, squares: str) -> None:
        """The outputs of [batch, S] squared norms."""
        norms = self.graph.apply("Sqrt", squares)
        self.scalar(norms, 0, "gradient_norm")
        if isinstance(self.network.head, ClassificationHead):
            self.scalar(norms, 1, "margin_gradient_norm")

    def jacobian(self) -> None:
        """Sweep every score by itself."""
        head, weight = self.network.head, self.network.output.weight
        rows = head.jacobian_cotangent(weight[:1, :1].expand(1, head.scores)) @ weight
        swept = self.sweep(self.constant("output/jacobian_rows", rows))
        jacobian = self.graph.apply("MatMul", swept, self.weight_by_feature(), name=self.unless_movable("jacobian"))
        if self.movable:
            mask = self.graph.apply("Unsqueeze", self.movable, self.indices(1))
            self.graph.apply("Mul", jacobian, mask, name="jacobian")

    def flips(self) -> None:
        """The prediction with one categorical feature put to each of its columns: from z_1 on, [batch, C, n_l]."""
        encoding, head, apply = self.network.encoding, self.network.head, self.graph.apply
        if not self.columns:
            return
        features, feature_of = np.unique(encoding.column_feature.numpy(), return_inverse=True)
        member = torch.from_numpy(np.arange(len(features))[:, None] == feature_of)
        start = len(encoding.numeric)
        weight = self.constant(
            "categories/weight", self.layers[0].weight[:, start : start + len(encoding.column_feature)].mT
        )
        # What each feature's own category adds to z_1, [batch, categorical features, n_1]; then by column.
        held = apply("Mul", apply("Unsqueeze", self.columns, self.indices(1)), self.constant("categories/of", member))
        present = self.gather(apply("MatMul", held, weight), torch.from_numpy(feature_of))
        z = apply("Add", apply("Sub", apply("Unsqueeze", self.preactivations[0], self.indices(1)), present), weight)
        h, _ = self.activation(1, self.layers[0].activation, z)
        for number, layer in enumerate(self.layers[1:], start=2):
            product = apply("MatMul", h, apply("Transpose", f"layer{number}/weight", perm=[1, 0]))
            h, _ = self.activation(number, layer.activation, apply("Add", product, f"layer{number}/bias"))
        scores = apply("Add", apply("MatMul", h, apply("Transpose", "output/weight", perm=[1, 0])), "output/bias")
        match head:
            case ClassificationHead():
                apply("Softmax", scores, name=FLIPS, axis=-1)
            case OrdinalHead():
                exceeds = apply("Sigmoid", apply("Sub", scores, self.constant("thresholds", head.thresholds)))
                self.expected_level(exceeds, head, axis=2, name=FLIPS)
            case RegressionHead():
                value = apply("Add", apply("Mul", scores, "target/scale"), "target/mean")
                apply("Squeeze", value, self.indices(2), name=FLIPS)

    def ranges(self, minimum: Sequence[float], maximum: Sequence[float]) -> None:
        """Shares of features beyond the training range and of hidden units on their tangent continuation."""
        apply = self.graph.apply
        below = apply("Less", INPUT, self.graph.constant("minimum", np.array(minimum, np.float32)))
        above = apply("Greater", INPUT, self.graph.constant("maximum", np.array(maximum, np.float32)))
        beyond = apply("Or", below, above)
        if len(self.network.encoding.missing_numbers):  # NaN is beyond nothing, a number that stands for it may be
            beyond = apply("And", beyond, apply("Not", self.missing))
        self.share("out_of_range", beyond)
        tangents = []
        for layer, z in zip(self.layers, self.preactivations, strict=True):
            bound = math.inf if layer.activation.bound is None else layer.activation.bound
            tangents.append(apply("Greater", apply("Abs", z), self.graph.constant("bound/upper", bound)))
        self.share("hidden_out_of_range", apply("Concat", *tangents, axis=1))

    def share(self, name: str, flags: str) -> None:
        """The mean of [batch, n] flags over n."""
        counted = self.graph.apply("Cast", flags, to=onnx.TensorProto.FLOAT)
        self.graph.apply("ReduceMean", counted, name=name, axes=[1], keepdims=0)
