"""ONNX Runtime sessions, and the truth about what they run on. What only a GPU needs stands in `service.cuda`."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from model.onnx_runtime import onnxruntime
from service.cuda import CUDA, CUDA_OPTIONS, SEVERITY_FATAL, BoundSession, why_no_cuda
from service.errors import StartError
from service.settings import Device

CPU = "CPUExecutionProvider"


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


class Session(Protocol):
    """One graph, ready to run; safe to run from several threads at once."""

    def run(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output for rows [batch, features]."""


class Runtime:
    """Makes sessions that all run on one execution provider."""

    def __init__(self, device: Device, threads: int) -> None:
        """Find out what there is to run on.

        Args:
            device: `cuda` insists, `cpu` does not look further, `auto` takes CUDA where it works.
            threads: of one computation on the CPU.

        Raises:
            StartError: `cuda` was asked for and a session does not run there.
        """
        self._threads = threads
        self._strict = device == "cuda"
        reason = None
        if device != "cpu":
            reason = why_no_cuda(lambda probe: self._make(probe, CUDA, strict=True), quiet=not self._strict)
        provider = CPU if device == "cpu" or reason else CUDA
        if self._strict and provider != CUDA:
            raise StartError(f"device cuda: expected a session on {CUDA}, got none: {reason}")
        self.execution = Execution(
            provider, device, reason, f"onnxruntime {onnxruntime.__version__}", threads, tf32=False
        )

    def session(self, model: onnx.ModelProto | bytes) -> Session:
        """Make a session for a model, or for one that is encoded already.

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
        return PlainSession(session) if provider == CPU else BoundSession(session, "cuda")

    def _make(self, model: onnx.ModelProto | bytes, provider: str, *, strict: bool) -> onnxruntime.InferenceSession:
        content = model if isinstance(model, bytes) else model.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = SEVERITY_FATAL  # its errors come as exceptions, and may hold what was sent
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider == CPU:
            return onnxruntime.InferenceSession(content, options, providers=[CPU])
        if strict:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = onnxruntime.InferenceSession(
            content, options, providers=[(CUDA, CUDA_OPTIONS)] + ([] if strict else [CPU])
        )
        session.disable_fallback()
        return session


class PlainSession:
    """A session whose numbers stay in the machine's memory."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        """Wrap a session of ONNX Runtime."""
        self._session = session
        self._input = session.get_inputs()[0].name
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, x: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output for rows [batch, features]."""
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: x}), strict=True))
