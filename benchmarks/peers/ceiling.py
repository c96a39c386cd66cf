"""The most that Python serves of a graph, one request at a time: a bare ASGI callable, orjson and ONNX Runtime.

Nothing is validated, batched, logged or handed to a thread: whatever a service does beyond this costs, and what beats
this has batched. Speaks the Open Inference Protocol's JSON, as far as a right request goes.
"""

import argparse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np
import orjson
import uvicorn

from model.onnx_runtime import onnxruntime
from model.outputs import INPUT

Message = MutableMapping[str, Any]


class Ceiling:
    """One session a path."""

    def __init__(self, graphs: dict[str, str]) -> None:
        """Load a graph for each path."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._sessions = {
            path: onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for path, graph in graphs.items()
        }
        self._names = {
            path: [output.name for output in session.get_outputs()] for path, session in self._sessions.items()
        }

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        path = scope["path"]
        if path not in self._sessions:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message["body"])
            more = message.get("more_body", False)
        tensor = orjson.loads(b"".join(parts))["inputs"][0]
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        outputs = [
            {"name": name, "shape": values.shape, "datatype": "FP32", "data": values.ravel()}
            for name, values in zip(self._names[path], self._sessions[path].run(None, {INPUT: x}), strict=True)
        ]
        document = {"model_name": "subject", "model_version": "1", "outputs": outputs}
        body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve two graphs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--plain", required=True)
    parser.add_argument("--sensitivity", required=True)
    arguments = parser.parse_args()
    app = Ceiling({"/plain": arguments.plain, "/sensitivity": arguments.sensitivity})
    uvicorn.run(
        app, port=arguments.port, loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
