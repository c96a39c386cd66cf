"""What predictions run on, told truthfully; and the execution plans, each a subgraph with a session of its own."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper
from starlette.testclient import TestClient

from model import bundle
from model.graph import subgraph
from model.outputs import Plan, Task, plan_outputs
from service.errors import StartError
from service.runtime import CPU, CUDA, Runtime
from service.sensitivity import Judge
from service.served import ServedModel
from tests.builders import export_network, make_network, make_rows
from tests.service.support import MODELS, Truth, ask, infer, serve, tensors


def cuda_works() -> bool:
    """Whether a session of ONNX Runtime, made here without the service, runs on a GPU."""
    if CUDA not in onnxruntime.get_available_providers():
        return False
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    onnxruntime.set_default_logger_severity(4)
    graph = export_network(make_network(features=2, hidden=(2,))).SerializeToString()
    try:
        return CUDA in onnxruntime.InferenceSession(graph, options, providers=[CUDA]).get_providers()[:1]
    except Exception:  # noqa: BLE001  (ONNX Runtime raises a class of its own for each status code)
        return False
    finally:
        onnxruntime.set_default_logger_severity(3)


CUDA_WORKS = cuda_works()
needs_cuda = pytest.mark.skipif(not CUDA_WORKS, reason="no GPU that ONNX Runtime can use")
needs_no_cuda = pytest.mark.skipif(CUDA_WORKS, reason="there is a GPU that ONNX Runtime can use")


def serve_model(path: Path) -> ServedModel:
    """A bundle with its sessions, on the CPU."""
    read = bundle.read(path)
    return ServedModel(read, Runtime("cpu", threads=1), Judge(read.manifest, 95.0, 99.0))


@pytest.mark.parametrize("threads", [1, 2])
def test_cpu_is_the_cpu(threads: int) -> None:
    """Device `cpu` runs on the CPU, needs no reason, and says with what."""
    execution = Runtime("cpu", threads).execution
    assert (CPU, "cpu", None, threads, False) == (
        execution.provider,
        execution.requested,
        execution.reason,
        execution.threads,
        execution.tf32,
    )
    assert f"onnxruntime {onnxruntime.__version__}" == execution.runtime


@needs_no_cuda
def test_auto_says_why_it_is_not_cuda(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a usable GPU, `auto` takes the CPU and gives the reason, in words and not as noise of a library."""
    execution = Runtime("auto", threads=1).execution
    assert (CPU, "auto") == (execution.provider, execution.requested)
    assert execution.reason
    assert ("", "") == capfd.readouterr()


@needs_no_cuda
def test_cuda_without_a_gpu_stops_the_start() -> None:
    """`cuda` never falls back in silence."""
    with pytest.raises(StartError, match=r"device cuda: expected a session on CUDAExecutionProvider, got none: .+"):
        Runtime("cuda", threads=1)


@needs_no_cuda
def test_what_it_runs_on_is_told_by_both_faces(repository: Path) -> None:
    """`GET /v1/models` and the model metadata of `/v2` name the provider that was got, and why."""
    with serve(repository, device="auto") as client:
        execution = ask(client, "GET", "/v1/models").json()["execution"]
        parameters = ask(client, "GET", f"/v2/models/{MODELS[Task.ORDINAL]}").json()["parameters"]
    assert (CPU, "auto", CPU) == (execution["provider"], execution["requested"], parameters["execution_provider"])
    assert execution["reason"]


@needs_cuda
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_on_a_gpu_the_answers_are_those_of_the_cpu(
    client: TestClient, repository: Path, truths: dict[str, Truth], device: str
) -> None:
    """Every output agrees within 1e-4 with the CPU's, and the provider that computed it is named."""
    with serve(repository, device=device) as on_gpu:
        assert CUDA == ask(on_gpu, "GET", "/v1/models").json()["execution"]["provider"]
        for name in MODELS.values():
            x = truths[name].rows(64, seed=50)
            outputs = [output.name for output in truths[name].manifest.outputs()]
            expected = tensors(infer(client, name, x, outputs=outputs))
            actual = tensors(infer(on_gpu, name, x, outputs=outputs))
            for output in outputs:
                np.testing.assert_allclose(actual[output], expected[output], rtol=1e-4, atol=1e-4, err_msg=output)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("plan", Plan)
def test_a_plan_computes_its_outputs_and_no_others(truths: dict[str, Truth], task: Task, plan: Plan) -> None:
    """A plan gives its outputs and those of smaller plans, with the values of the whole graph."""
    truth = truths[MODELS[task]]
    x = truth.rows(9, seed=51)
    names = [output.name for output in plan_outputs(truth.manifest.outputs(), plan)]
    expected = truth.run(x)
    actual = serve_model(truth.path).run(plan, x)
    assert names == list(actual)
    for name in names:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("task", Task)
def test_a_smaller_plan_is_a_smaller_graph(truths: dict[str, Truth], task: Task) -> None:
    """No plan computes more operators than the next: a prediction alone does not pay for the gradient."""
    truth = truths[MODELS[task]]
    sizes = [
        len(subgraph(truth.graph, [output.name for output in plan_outputs(truth.manifest.outputs(), plan)]).graph.node)
        for plan in Plan
    ]
    assert sizes[0] < sizes[1] <= sizes[2] <= sizes[3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["logits"], Plan.PREDICT),
        (["probabilities", "logits"], Plan.PREDICT),
        (["gradient_norm"], Plan.SENSITIVITY),
        (["logits", "layer_derivatives"], Plan.SENSITIVITY),
        (["gradient", "logits"], Plan.GRADIENT),
        (["jacobian", "gradient", "logits"], Plan.JACOBIAN),
    ],
)
def test_the_cheapest_plan_that_computes_the_outputs_is_chosen(
    truths: dict[str, Truth], names: list[str], expected: Plan
) -> None:
    """The dearest of the wanted outputs decides, in whatever order they are named."""
    assert expected == serve_model(truths[MODELS[Task.CLASSIFICATION]].path).plan_of(names)


@pytest.mark.parametrize("count", [1, 2, 256])
def test_the_batch_axis_is_free(truths: dict[str, Truth], count: int) -> None:
    """One session runs batches of any size."""
    truth = truths[MODELS[Task.CLASSIFICATION]]
    model = serve_model(truth.path)
    for rows in (count, 3):
        outputs = model.run(Plan.SENSITIVITY, truth.rows(rows, seed=52))
        assert {rows} == {len(values) for values in outputs.values()}


def test_a_graph_that_onnx_runtime_refuses_is_a_start_error() -> None:
    """ONNX Runtime's own exceptions do not leave the runtime."""
    model = export_network(make_network())
    model.graph.node[0].CopyFrom(helper.make_node("Frobnicate", model.graph.node[0].input, model.graph.node[0].output))
    with pytest.raises(StartError, match=r"ONNX Runtime refuses the graph: .*Frobnicate"):
        Runtime("cpu", threads=1).session(model)


def test_threads_do_not_change_the_numbers() -> None:
    """Two threads for one prediction give what one gives, within float32 rounding."""
    network = make_network(features=64, hidden=(128, 64), targets=10)
    model = export_network(network)
    x = make_rows(network, 64, seed=53)
    one, two = (Runtime("cpu", threads).session(model).run(x) for threads in (1, 2))
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
