"""A runtime for MLServer as its documentation has one written, on ONNX Runtime. Runs in MLServer's own environment."""

from typing import Any

import onnxruntime
from mlserver import MLModel  # type: ignore[import-not-found]  # never installed beside the service
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceResponse  # type: ignore[import-not-found]


class OnnxRuntime(MLModel):  # type: ignore[misc]  # as above
    """Every output of one graph."""

    async def load(self) -> bool:
        """Make the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: Any) -> Any:
        """Run it inline: on one core a thread would only add to it."""
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        outputs = [
            NumpyCodec.encode_output(name, values)
            for name, values in zip(self._names, self._session.run(None, {payload.inputs[0].name: x}), strict=True)
        ]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
