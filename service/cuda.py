"""What is different on a GPU: how CUDA is looked for, its options, and input and output that are bound to a device.

ONNX Runtime falls back to the CPU silently, and `get_available_providers()` names CUDA wherever the package was built
with it. Only `session.get_providers()` tells: so a probe session is made first, and what it got is what is reported.

Not covered here: several GPUs (run one process for each, with CUDA_VISIBLE_DEVICES), and CUDA graphs.
"""

import contextlib
import io
import logging
from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model.onnx_runtime import onnxruntime

CUDA = "CUDAExecutionProvider"
# TF32 rounds products to 10 bits of mantissa: the numbers that are reported and audited would change.
CUDA_OPTIONS = {"use_tf32": "0"}
SEVERITY_ERROR, SEVERITY_FATAL = 3, 4

log = logging.getLogger(__name__)


def why_no_cuda(make: Callable[[onnx.ModelProto], onnxruntime.InferenceSession], *, quiet: bool) -> str | None:
    """Try a session on CUDA; None where it runs there, else why it does not, for a person.

    Args:
        make: makes a session that must be on CUDA, or raises.
        quiet: keep ONNX Runtime from telling of each missing library on both standard streams.
    """
    if CUDA not in onnxruntime.get_available_providers():
        return f"ONNX Runtime {onnxruntime.__version__} was built without CUDA here"
    onnxruntime.set_default_logger_severity(SEVERITY_FATAL if quiet else SEVERITY_ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
            onnxruntime.preload_dlls()  # CUDA libraries that came as Python packages, as with torch
        providers = make(_probe()).get_providers()
    except Exception as error:  # noqa: BLE001  (ONNX Runtime raises a class of its own for each status code)
        log.debug("no session on %s: %s", CUDA, error)
        return f"ONNX Runtime {onnxruntime.__version__} found no GPU, driver or CUDA libraries that it can use"
    finally:
        onnxruntime.set_default_logger_severity(SEVERITY_ERROR)
    return None if providers[0] == CUDA else f"a session asked for {CUDA} got {providers}"


def _probe() -> onnx.ModelProto:
    """The smallest graph that a GPU would compute."""
    shape: list[str | int | None] = ["batch", 1]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class BoundSession:
    """A session whose results are made on the device and copied back together, once all of them are there.

    `InferenceSession.run` waits for the device once an output. A binding belongs to one call, so that several threads
    may call at once. It works on the CPU too, where the tests run it.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str) -> None:
        """`device` is where results are made: cuda or cpu."""
        self._session = session
        self._device = device
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output for rows [batch, features]."""
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._input, np.ascontiguousarray(x))
        for output in self._outputs:
            binding.bind_output(output, self._device)
        self._session.run_with_iobinding(binding)
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))
