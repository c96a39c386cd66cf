"""ONNX Runtime, told before it is loaded not to report its use to its maker. Torch-free.

From 1.29 on its Linux builds too send usage events over the network, unless ORT_DISABLE_TELEMETRY is set before the
library starts. What handles patients' or applicants' data must not; whoever wants it sets the variable to 0.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
