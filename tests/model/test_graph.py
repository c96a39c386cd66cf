"""The writer of graphs."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from model.graph import GraphBuilder, subgraph
from model.outputs import INPUT
from tests.builders import run_graph


def test_a_small_graph_computes_what_was_written() -> None:
    """Operators follow each other as written, further results have numbered names, outputs stand in the given order."""
    graph = GraphBuilder()
    doubled = graph.apply("Mul", INPUT, graph.constant("two", 2.0))
    best = graph.apply("TopK", doubled, graph.constant("one", [1]), name="best", outputs=2)
    graph.apply("Cast", f"{best}.1", name="which", to=onnx.TensorProto.FLOAT)
    model = graph.build("small", {INPUT: (3,)}, {"which": (1,), "best": (1,)})
    outputs = run_graph(model, np.array([[1.0, 5.0, 2.0], [3.0, 0.0, -1.0]], np.float32))
    assert {"which": [[1.0], [0.0]], "best": [[10.0], [6.0]]} == {
        name: values.tolist() for name, values in outputs.items()
    }
    assert ["which", "best"] == list(outputs)


def test_constants_are_stored_once_with_their_type() -> None:
    """Whole numbers become int64 indices, all else float32; a name stands for one constant."""
    graph = GraphBuilder()
    indices = graph.constant("indices", [2, 1])
    numbers = graph.constant("numbers", np.array([0.1, 0.2]))
    assert ("indices", "numbers", "indices") == (indices, numbers, graph.constant("indices", [2, 1]))
    picked = graph.apply("Gather", INPUT, indices, axis=1)
    graph.apply("Add", picked, numbers, name="sum")
    model = graph.build("small", {INPUT: (3,)}, {"sum": (2,)})
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert {"indices": np.dtype(np.int64), "numbers": np.dtype(np.float32)} == {
        name: array.dtype for name, array in stored.items()
    }
    assert len(stored) == len(model.graph.initializer)
    assert [2, 1] == stored["indices"].tolist()


def test_a_graph_that_does_not_hold_together_is_refused() -> None:
    """An operator that reads what nothing writes, or an output of another shape than declared, ends the export."""
    dangling = GraphBuilder()
    dangling.apply("Relu", "nothing", name="result")
    with pytest.raises(onnx.checker.ValidationError, match="nothing"):
        dangling.build("dangling", {INPUT: (3,)}, {"result": (3,)})
    misdeclared = GraphBuilder()
    misdeclared.apply("Relu", INPUT, name="result")
    with pytest.raises(onnx.shape_inference.InferenceError, match="shape"):
        misdeclared.build("misdeclared", {INPUT: (3,)}, {"result": (4,)})


def test_a_subgraph_holds_what_its_outputs_need() -> None:
    """Nodes and constants of other outputs are left out, the values stay, and the model is left as it was."""
    graph = GraphBuilder()
    shared = graph.apply("Add", INPUT, graph.constant("one", 1.0), name="shared")
    graph.apply("Mul", shared, graph.constant("two", 2.0), name="doubled")
    graph.apply("Mul", "doubled", graph.constant("three", 3.0), name="sixfold")
    graph.apply("Neg", shared, name="negated")
    whole = graph.build("whole", {INPUT: (2,)}, {"doubled": (2,), "sixfold": (2,), "negated": (2,)})
    before = whole.SerializeToString(deterministic=True)
    rows = np.array([[1.0, 2.0]], np.float32)
    for names, nodes, constants in (
        (["negated"], ["shared", "negated"], {"one"}),
        (["negated", "doubled"], ["shared", "doubled", "negated"], {"one", "two"}),
        (["sixfold"], ["shared", "doubled", "sixfold"], {"one", "two", "three"}),
    ):
        cut = subgraph(whole, names)
        onnx.checker.check_model(cut, full_check=True)
        assert nodes == [node.output[0] for node in cut.graph.node]
        assert constants == {constant.name for constant in cut.graph.initializer}
        expected = {name: values.tolist() for name, values in run_graph(whole, rows).items() if name in names}
        actual = run_graph(cut, rows)
        assert names == list(actual)
        assert expected == {name: values.tolist() for name, values in actual.items()}
    assert before == whole.SerializeToString(deterministic=True)


def test_a_subgraph_of_an_unknown_output_is_refused() -> None:
    """Only what the model declares can be cut out of it."""
    graph = GraphBuilder()
    graph.apply("Neg", INPUT, name="negated")
    model = graph.build("small", {INPUT: (2,)}, {"negated": (2,)})
    with pytest.raises(KeyError, match="doubled"):
        subgraph(model, ["doubled"])
