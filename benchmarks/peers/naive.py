"""What one writes in an afternoon: FastAPI, Pydantic bodies and ONNX Runtime, for the plain prediction.

The route is `async def` and computes inline: on one core the faster of the two ordinary ways.
"""

import argparse

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from model.onnx_runtime import onnxruntime
from model.outputs import INPUT


class Question(BaseModel):
    """Rows to predict."""

    instances: list[list[float]]


class Answer(BaseModel):
    """A list a row of each output."""

    logits: list[list[float]]
    probabilities: list[list[float]]


def create_app(graph: str) -> FastAPI:
    """The application over one graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/predict")
    async def predict(question: Question) -> Answer:
        logits, probabilities = session.run(
            ["logits", "probabilities"], {INPUT: np.array(question.instances, np.float32)}
        )
        return Answer(logits=logits.tolist(), probabilities=probabilities.tolist())

    return app


def main() -> None:
    """Serve a graph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--plain", required=True)
    arguments = parser.parse_args()
    uvicorn.run(create_app(arguments.plain), port=arguments.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
