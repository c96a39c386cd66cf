"""What predictions run on, told truthfully; and the execution plans, each a subgraph with a session of its own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from model import bundle
from model.graph import subgraph
from model.outputs import Plan, Task, plan_outputs
from service.batching import Cost
from service.cuda import CUDA, BoundSession
from service.errors import StartError
from service.runtime import CPU, PlainSession, Runtime, Session
from service.sensitivity import Judge
from service.served import PLANS, READY_PLANS, ServedModel
from service.settings import Device
from tests.builders import export_network, make_bundle, make_network, make_rows
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
    return ServedModel(read, Runtime("cpu", threads=1), Judge(read.manifest, 95.0, 99.0), max_batch_rows=64)


def raw_session(session: Session) -> onnxruntime.InferenceSession:
    """ONNX Runtime's own session behind one of the service's."""
    assert isinstance(session, PlainSession | BoundSession)
    return session._session


def execution_labels(metrics: str) -> list[dict[str, str]]:
    """The labels of each sample of `chainzrule_execution_info`."""
    return [
        sample.labels
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "chainzrule_execution_info" and sample.value == 1
    ]


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
def test_what_it_runs_on_is_told_everywhere(repository: Path) -> None:
    """`GET /v1/models`, the model metadata of `/v2` and the metrics name the provider that was got, and why."""
    with serve(repository, device="auto", threads=2) as client:
        execution = ask(client, "GET", "/v1/models").json()["execution"]
        parameters = ask(client, "GET", f"/v2/models/{MODELS[Task.ORDINAL]}").json()["parameters"]
        (labels,) = execution_labels(ask(client, "GET", "/metrics").text)
    assert (CPU, "auto", CPU) == (execution["provider"], execution["requested"], parameters["execution_provider"])
    assert execution["reason"]
    runtime = f"onnxruntime {onnxruntime.__version__}"
    assert {"provider": CPU, "runtime": runtime, "threads": "2", "tf32": "false"} == labels


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("count", [1, 3, 256])
def test_bound_results_are_those_of_a_plain_run(
    truths: dict[str, Truth], device: Device, task: Task, count: int
) -> None:
    """Results that are made on the device and copied back together are those of `run`, bit for bit."""
    truth = truths[MODELS[task]]
    session = raw_session(Runtime(device, threads=1).session(truth.graph))
    x = truth.rows(count, seed=54)
    expected = PlainSession(session).run(x)
    actual = BoundSession(session, device).run(x)
    assert list(expected) == list(actual)
    for name, values in expected.items():
        assert (values.dtype, values.shape) == (actual[name].dtype, actual[name].shape)
        assert values.tobytes() == actual[name].tobytes(), name


def test_bound_sessions_take_rows_of_any_layout(truths: dict[str, Truth]) -> None:
    """Rows that lie scattered in memory, such as every other row of an array, are not mistaken for others."""
    truth = truths[MODELS[Task.CLASSIFICATION]]
    session = raw_session(Runtime("cpu", threads=1).session(truth.graph))
    x = truth.rows(20, seed=55)
    for rows in (x[::2], np.asfortranarray(x), x[::-1]):
        assert not rows.flags.c_contiguous
        expected = PlainSession(session).run(np.ascontiguousarray(rows))["gradient_norm"]
        assert expected.tobytes() == BoundSession(session, "cpu").run(rows)["gradient_norm"].tobytes()


def test_a_bound_session_is_run_by_several_threads(truths: dict[str, Truth]) -> None:
    """A binding belongs to one call: 8 threads at once each get the numbers of their own rows."""
    truth = truths[MODELS[Task.CLASSIFICATION]]
    session = raw_session(Runtime("cpu", threads=1).session(truth.graph))
    batches = [truth.rows(1 + k % 7, seed=k) for k in range(200)]
    expected = [PlainSession(session).run(x)["gradient_norm"].tolist() for x in batches]
    bound = BoundSession(session, "cpu")
    with ThreadPoolExecutor(8) as pool:
        assert expected == list(pool.map(lambda x: bound.run(x)["gradient_norm"].tolist(), batches))


def test_on_the_cpu_sessions_are_plain(truths: dict[str, Truth]) -> None:
    """Results are bound only where there is a device to copy them from; threads never spin, as was asked for."""
    session = Runtime("cpu", threads=2).session(truths[MODELS[Task.REGRESSION]].graph)
    assert isinstance(session, PlainSession)
    options = raw_session(session).get_session_options()
    assert (2, 1) == (options.intra_op_num_threads, options.inter_op_num_threads)
    assert "0" == options.get_session_config_entry("session.intra_op.allow_spinning")


@needs_cuda
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_on_a_gpu_the_answers_are_those_of_the_cpu(
    client: TestClient, repository: Path, truths: dict[str, Truth], device: str
) -> None:
    """Every output agrees within 1e-4 with the CPU's."""
    with serve(repository, device=device) as on_gpu:
        for name in MODELS.values():
            x = truths[name].rows(64, seed=50)
            outputs = [output.name for output in truths[name].manifest.outputs()]
            expected = tensors(infer(client, name, x, outputs=outputs))
            actual = tensors(infer(on_gpu, name, x, outputs=outputs))
            for output in outputs:
                np.testing.assert_allclose(actual[output], expected[output], rtol=1e-4, atol=1e-4, err_msg=output)


@needs_cuda
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_on_a_gpu_it_is_told_everywhere(repository: Path, device: str) -> None:
    """`GET /v1/models`, the metadata of `/v2` and the metrics name CUDA, and TF32 as off."""
    with serve(repository, device=device) as on_gpu:
        execution = ask(on_gpu, "GET", "/v1/models").json()["execution"]
        assert (CUDA, device, None, False) == (
            execution["provider"],
            execution["requested"],
            execution["reason"],
            execution["tf32"],
        )
        parameters = ask(on_gpu, "GET", f"/v2/models/{MODELS[Task.ORDINAL]}").json()["parameters"]
        assert CUDA == parameters["execution_provider"]
        assert [(CUDA, "false")] == [
            (labels["provider"], labels["tf32"]) for labels in execution_labels(ask(on_gpu, "GET", "/metrics").text)
        ]


@needs_cuda
@pytest.mark.parametrize(("device", "strict"), [("cuda", "1"), ("auto", "0")])
def test_on_a_gpu_sessions_are_bound_and_without_tf32(truths: dict[str, Truth], device: Device, strict: str) -> None:
    """What ONNX Runtime says of the session itself: CUDA first, TF32 off, and with `cuda` no way back to the CPU."""
    made = Runtime(device, threads=1).session(truths[MODELS[Task.CLASSIFICATION]].graph)
    assert isinstance(made, BoundSession)
    session = raw_session(made)
    assert CUDA == session.get_providers()[0]
    assert "0" == session.get_provider_options()[CUDA]["use_tf32"]
    options = session.get_session_options()
    entry = "session.disable_cpu_ep_fallback"
    assert strict == (options.get_session_config_entry(entry) if options.has_session_config_entry(entry) else "0")


@needs_cuda
def test_on_a_gpu_products_are_not_rounded_to_tf32() -> None:
    """A product of matrices agrees with float64 to float32's precision: TF32 would be off by about 1e-3."""
    generator = np.random.default_rng(56)
    weights = generator.standard_normal((512, 512)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 512])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = generator.standard_normal((256, 512)).astype(np.float32)
    exact = x.astype(np.float64) @ weights.astype(np.float64)
    actual = Runtime("cuda", threads=1).session(model).run(x)["y"]
    assert np.abs(actual - exact).max() < 1e-4 * np.abs(exact).max()


@needs_cuda
def test_on_a_gpu_an_operator_that_only_the_cpu_has_is_refused() -> None:
    """With `cuda`, ONNX Runtime may not put a part of the graph on the CPU in silence."""
    shape: list[str | int | None] = ["batch", 2, 2]
    graph = helper.make_graph(
        [helper.make_node("Det", ["x"], ["y"])],
        "determinant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(StartError, match="ONNX Runtime refuses the graph"):
        Runtime("cuda", threads=1).session(model)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("plan", Plan)
def test_a_plan_computes_its_outputs_and_no_others(truths: dict[str, Truth], task: Task, plan: Plan) -> None:
    """A plan gives its outputs and those of smaller plans, with the values of the whole graph."""
    truth = truths[MODELS[task]]
    x = truth.rows(9, seed=51)
    names = [output.name for output in plan_outputs(truth.manifest.outputs(), plan)]
    expected = truth.run(x)
    actual = serve_model(truth.path).compute(plan, x).outputs
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
        if plan is not Plan.FLIPS  # of numbers alone there are none: it is the gradient's
    ]
    assert sizes[0] < sizes[1] <= sizes[2] <= sizes[3] == sizes[4]


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
    selection = serve_model(truths[MODELS[Task.CLASSIFICATION]].path).select(tuple(names))
    assert (expected, names) == (selection.plan, [output.name for output in selection.outputs])


@pytest.mark.parametrize("count", [1, 2, 256])
def test_the_batch_axis_is_free(truths: dict[str, Truth], count: int) -> None:
    """One session runs batches of any size."""
    truth = truths[MODELS[Task.CLASSIFICATION]]
    model = serve_model(truth.path)
    for rows in (count, 3):
        outputs = model.compute(Plan.SENSITIVITY, truth.rows(rows, seed=52)).outputs
        assert {rows} == {len(values) for values in outputs.values()}


def test_the_common_plans_are_ready_and_the_rare_ones_wait(truths: dict[str, Truth]) -> None:
    """Loading makes and warms the plans of nearly every request; a rarer one is made once, when it is asked for."""
    model = serve_model(truths[MODELS[Task.CLASSIFICATION]].path)
    assert [plan in READY_PLANS for plan in PLANS] == [model.prepared(plan) for plan in PLANS]
    with ThreadPoolExecutor(4) as pool:
        sessions = list(pool.map(lambda _: model.prepare(Plan.JACOBIAN), range(8)))
    assert {id(sessions[0])} == {id(session) for session in sessions}
    assert model.prepared(Plan.JACOBIAN)
    assert not model.prepared(Plan.GRADIENT)


def test_the_cost_of_a_plan_is_measured(truths: dict[str, Truth]) -> None:
    """A prepared plan has a positive cost for a row, and never a negative one for a further row."""
    model = serve_model(truths[MODELS[Task.CLASSIFICATION]].path)
    for plan in READY_PLANS:
        cost = model.cost(plan)
        assert 0 < cost.first < 1
        assert 0 <= cost.further < 1
        assert cost.first == cost.seconds(1)


def test_cost_is_linear_in_the_rows() -> None:
    """The first row costs the call, each further one a little more."""
    assert [1.0, 1.25, 3.25] == [Cost(1.0, 0.25).seconds(rows) for rows in (1, 2, 10)]


def test_a_batch_of_one_row_has_a_cost_too(truths: dict[str, Truth]) -> None:
    """Where a batch may have one row only, there is no slope to measure."""
    read = bundle.read(truths[MODELS[Task.REGRESSION]].path)
    model = ServedModel(read, Runtime("cpu", threads=1), Judge(read.manifest, 95.0, 99.0), max_batch_rows=1)
    assert 0.0 <= model.cost(Plan.PREDICT).further


@pytest.mark.parametrize("seed", range(3))
def test_warming_up_does_not_overflow(tmp_path: Path, seed: int) -> None:
    """A model that overflows away from its data is warmed where it does not: at the features' means."""
    path = make_bundle(tmp_path, bound=None, seed=seed)
    truth = Truth(path)
    assert all(np.isfinite(values).all() for values in truth.run(truth.mean[None]).values())
    assert serve_model(path).prepared(Plan.SENSITIVITY)


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
