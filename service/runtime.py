"""ONNX Runtime sessions, and the truth about what they run on.

ONNX Runtime falls back to the CPU silently, and `get_available_providers()` names CUDA wherever the package was built
with it. Only `session.get_providers()` tells: so a probe session is made first, and what it got is what is reported.
"""

import contextlib
import io
import logging
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from model.onnx_runtime import onnxruntime
from service.errors import StartError
from service.settings import Device

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# TF32 rounds products to 10 bits of mantissa: the numbers that are reported and audited would change.
CUDA_OPTIONS = {"use_tf32": "0"}
SEVERITY_ERROR, SEVERITY_FATAL = 3, 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """What predictions really run on."""

    provider: str
    """The execution provider of ONNX Runtime."""
    requested: Device
    reason: str | None
    """Why it is not CUDA, where `auto` looked for it."""
    runtime: str
    """ONNX Runtime and its version."""
    threads: int
    tf32: bool


class Runtime:
    """Makes sessions that all run on one execution provider."""

    def __init__(self, device: Device, threads: int) -> None:
        """Find out what there is to run on.

        Args:
            device: `cuda` insists, `cpu` does not look further, `auto` takes CUDA where it works.
            threads: of one prediction on the CPU.

        Raises:
            StartError: `cuda` was asked for and a session does not run there.
        """
        self._threads = threads
        self._strict = device == "cuda"
        provider, reason = (CPU, None) if device == "cpu" else self._look_for_cuda()
        if self._strict and provider != CUDA:
            raise StartError(f"device cuda: expected a session on {CUDA}, got none: {reason}")
        self.execution = Execution(
            provider, device, reason, f"onnxruntime {onnxruntime.__version__}", threads, tf32=False
        )

    def _look_for_cuda(self) -> tuple[str, str | None]:
        if CUDA not in onnxruntime.get_available_providers():
            return CPU, f"ONNX Runtime {onnxruntime.__version__} was built without CUDA here"
        # ONNX Runtime tells of each missing library on both standard streams: for who insists on CUDA, not for `auto`.
        onnxruntime.set_default_logger_severity(SEVERITY_ERROR if self._strict else SEVERITY_FATAL)
        try:
            with contextlib.nullcontext() if self._strict else contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls()  # CUDA libraries that came as Python packages, as with torch
            providers = self._make(_probe(), CUDA, strict=True).get_providers()
        except Exception as error:  # noqa: BLE001  (ONNX Runtime raises a class of its own for each status code)
            log.debug("no session on %s: %s", CUDA, error)
            return CPU, f"ONNX Runtime {onnxruntime.__version__} found no GPU, driver or CUDA libraries that it can use"
        finally:
            onnxruntime.set_default_logger_severity(SEVERITY_ERROR)
        return (CUDA, None) if providers[0] == CUDA else (CPU, f"a session asked for {CUDA} got {providers}")

    def session(self, model: onnx.ModelProto) -> "Session":
        """Make a session for a model.

        Raises:
            StartError: the session does not run where every other one does.
        """
        provider = self.execution.provider
        try:
            session = self._make(model, provider, strict=self._strict)
        except Exception as error:
            raise StartError(f"ONNX Runtime refuses the graph: {error}") from error
        if session.get_providers()[0] != provider:
            raise StartError(f"expected a session on {provider}, got one on {session.get_providers()}")
        return Session(session)

    def _make(self, model: onnx.ModelProto, provider: str, *, strict: bool) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = SEVERITY_FATAL if provider == CUDA and strict else SEVERITY_ERROR
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider == CPU:
            return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
        if strict:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[(CUDA, CUDA_OPTIONS)] + ([] if strict else [CPU])
        )
        session.disable_fallback()
        return session


class Session:
    """One graph, ready to run; safe to run from several threads at once."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        """Wrap a session of ONNX Runtime."""
        self._session = session
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output for rows [batch, features]."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: x}), strict=True))


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
