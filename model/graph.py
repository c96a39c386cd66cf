"""A small writer of ONNX graphs: named constants, one call an operator. Torch-free.

Opset 17 and IR version 8 are what ONNX Runtime has read since 1.12, and Triton, OpenVINO and the other OIP servers of
that age with it; nothing newer is needed here.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
BATCH = "batch"


class GraphBuilder:
    """Collects nodes and constants, in the order in which they are written."""

    def __init__(self) -> None:
        """Start an empty graph."""
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: ArrayLike) -> str:
        """Store float32 numbers (or int64 indices, where `values` are whole numbers) once, and return their name."""
        array = np.asarray(values)
        dtype = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float32
        tensor = numpy_helper.from_array(np.asarray(array, dtype=dtype, order="C"), name)
        if self._constants.setdefault(name, tensor) != tensor:
            raise ValueError(f"constant {name!r}: expected the values that it has already, got others")
        return name

    def apply(self, operator: str, *inputs: str, name: str | None = None, outputs: int = 1, **attributes: Any) -> str:
        """Write one operator and return the name of its (first) result.

        Args:
            operator: its ONNX name.
            inputs: names of constants, graph inputs or earlier results.
            name: of the result; one is made up where it is left out.
            outputs: how many results the operator has; the k-th further one is called `<name>.k`.
            attributes: of the operator.
        """
        name = name or f"{operator.lower()}_{len(self._nodes)}"
        results = [name, *(f"{name}.{k}" for k in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, list(inputs), results, name=f"node/{name}", **attributes))
        return name

    def build(
        self, name: str, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
    ) -> onnx.ModelProto:
        """Close the graph: float32 inputs and outputs by name with the shape of one row; the batch axis is free."""

        def declare(shapes: dict[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(key, TensorProto.FLOAT, [BATCH, *shape]) for key, shape in shapes.items()
            ]

        graph = helper.make_graph(
            self._nodes, name, declare(inputs), declare(outputs), initializer=list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="chainzrule",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def subgraph(model: onnx.ModelProto, outputs: Iterable[str]) -> onnx.ModelProto:
    """Cut out of a model what its named outputs need: a runtime computes a whole graph, whatever is asked of it.

    Args:
        model: any model; it is left as it is.
        outputs: names of graph outputs, in the order wanted.

    Returns:
        A model with the same inputs, those outputs, and only the nodes and constants that they depend on.

    Raises:
        KeyError: `model` has no such output.
    """
    graph = model.graph
    declared = {value.name: value for value in graph.output}
    wanted = [declared[name] for name in outputs]
    needed = {value.name for value in wanted}
    nodes = []
    for node in reversed(graph.node):  # in topological order, as ONNX demands: users before makers when reversed
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    cut = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            _copy(cut, field.name, value)
    for field, value in graph.ListFields():
        if field.name not in {"node", "initializer", "output"}:
            _copy(cut.graph, field.name, value)
    cut.graph.node.extend(reversed(nodes))
    cut.graph.initializer.extend(constant for constant in graph.initializer if constant.name in needed)
    cut.graph.output.extend(wanted)
    return cut


def _copy(message: Any, name: str, value: Any) -> None:
    """Set a field that is a plain value or a list of messages."""
    if isinstance(value, int | float | str | bytes):
        setattr(message, name, value)
    else:
        getattr(message, name).extend(value)
